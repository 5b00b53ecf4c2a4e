"""The demo target twice, one after the other in one program, with engines that are forked from it."""

import multiprocessing
import sys

from profilemate_demo.__main__ import main

real = multiprocessing.get_context
multiprocessing.get_context = lambda method=None: real("fork")

sys.exit(main(sys.argv[1:]) or main(sys.argv[1:]))

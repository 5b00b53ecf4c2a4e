"""Opens a report in Chromium, clicks in it, and prints what was seen as JSON.

check.py PAGE [SHOTS]     SHOTS: folder for screenshots and the printed page
"""

import json
import shutil
import sys
import tempfile
import time
from pathlib import Path

from playwright.sync_api import sync_playwright

# Milliseconds that a loaded machine may take for anything.
PATIENCE = 30_000

# What each plot holds, and what of it stands in the document.
DRAWN = """() => Object.fromEntries([...document.querySelectorAll('.plot')].map((place) => [place.id.slice(5), {
    width: place.clientWidth,
    svg: Math.max(0, ...[...place.querySelectorAll('.main-svg')].map((svg) => svg.getBoundingClientRect().width)),
    lines: [...place.querySelectorAll('.js-line')].filter((line) => line.getAttribute('d')).length,
    points: place.querySelectorAll('.scatterlayer .point').length,
    bars: place.querySelectorAll('.barlayer .point').length,
    images: place.querySelectorAll('.heatmaplayer image').length,
    traces: (place.data || []).map((trace) => ({
        name: trace.name, type: trace.type, mode: trace.mode, points: (trace.x || []).length,
        sum: (Array.isArray((trace.y || [])[0]) ? [] : trace.orientation === 'h' ? trace.x : trace.y || [])
            .reduce((sum, value) => sum + (typeof value === 'number' ? value : 0), 0),
    })),
}]))"""

# A point of a trace, in pixels of the window; scrolled into view first.
POINT = """([id, name]) => {
    const place = document.getElementById('plot-' + id), full = place._fullLayout;
    place.scrollIntoView({block: 'center', behavior: 'instant'});
    const trace = place._fullData.find((trace) => trace.name === name);
    const x = full[trace.xaxis.replace('x', 'xaxis')], y = full[trace.yaxis.replace('y', 'yaxis')];
    const middle = Math.floor(trace.x.length / 2), area = place.getBoundingClientRect();
    const horizontal = trace.orientation === 'h';
    const at = horizontal ? (trace.base ? trace.base[middle] : 0) + trace.x[middle] / 2 : trace.x[middle];
    return {
        x: area.left + x._offset + x.d2p(at), y: area.top + y._offset + y.d2p(trace.y[middle]),
        value: [at, trace.y[middle]],
    };
}"""

RANGE = "(id) => document.getElementById('plot-' + id)._fullLayout.xaxis.range.map(Number)"
VISIBLE = "(id) => document.getElementById('plot-' + id)._fullData.map((trace) => trace.visible)"
OVERFLOW = """() => ({
    page: document.documentElement.scrollWidth, window: window.innerWidth,
    wide: [...document.querySelectorAll('body *')].filter((one) => {
        const box = one.getBoundingClientRect();
        return box.width && box.right > window.innerWidth + 1 && !one.closest('.plot, .scroll, .skip, pre');
    }).map((one) => one.tagName + '.' + one.className),
})"""


def opened(browser, page_path, **options):
    """A tab with the page, and what went wrong or went out."""
    seen = {"console": [], "errors": [], "requests": []}
    tab = browser.new_context(**options).new_page()
    tab.set_default_timeout(PATIENCE)
    tab.on("console", lambda said: seen["console"].append(said.text) if said.type in ("error", "warning") else None)
    tab.on("pageerror", lambda error: seen["errors"].append(str(error)))
    url = Path(page_path).resolve().as_uri()
    inside = (url, "data:", "blob:")
    tab.on("request", lambda one: None if one.url.startswith(inside) else seen["requests"].append(one.url))
    tab.goto(url)
    tab.wait_for_selector("html[data-drawn], html[data-failed]", state="attached")
    seen["failed"] = tab.evaluate("document.documentElement.dataset.failed ?? null")
    return tab, seen


def until(tab, condition, arg=None):
    """Waits until a function of the page says yes. Asked from outside: the page's policy forbids it to poll by itself."""
    deadline = time.monotonic() + PATIENCE / 1000
    while not tab.evaluate(condition, arg):
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited in vain for {condition} of {arg}")
        time.sleep(0.05)


def hover(tab, plot, trace):
    """What is shown over a point in the middle of a trace."""
    at = tab.evaluate(POINT, [plot, trace])
    tab.mouse.move(at["x"] - 3, at["y"])
    tab.mouse.move(at["x"], at["y"], steps=3)
    label = f"#plot-{plot} .hoverlayer text"
    tab.wait_for_selector(label, state="attached")
    texts = tab.locator(label).all_text_contents()
    tab.mouse.move(1, 1)
    return {"text": " | ".join(texts), "value": at["value"]}


def zoom(tab, plot, other):
    """Drags over a part of the time in a plot; another one over time must follow. Double click puts it back."""
    before = tab.evaluate(RANGE, plot)
    tab.locator(f"#plot-{plot}").scroll_into_view_if_needed()
    box = tab.locator(f"#plot-{plot} .nsewdrag").first.bounding_box()
    middle = box["y"] + box["height"] / 2
    tab.mouse.move(box["x"] + box["width"] * 0.3, middle)
    tab.mouse.down()
    tab.mouse.move(box["x"] + box["width"] * 0.6, middle, steps=8)
    tab.mouse.up()
    changed = "([id, from]) => Number(document.getElementById('plot-' + id)._fullLayout.xaxis.range[0]) > from + 1e-9"
    until(tab, changed, [plot, before[0]])
    until(tab, changed, [other, before[0]])
    seen = {"before": before, "zoomed": tab.evaluate(RANGE, plot), "other": tab.evaluate(RANGE, other)}
    tab.mouse.dblclick(box["x"] + box["width"] * 0.5, middle)
    back = "([id, to]) => Number(document.getElementById('plot-' + id)._fullLayout.xaxis.range[1]) > to - 1e-9"
    until(tab, back, [plot, before[1]])
    until(tab, back, [other, before[1]])
    seen["after"] = tab.evaluate(RANGE, plot)
    return seen


def legend(tab, plot):
    """Clicks the first entry of the legend."""
    before = tab.evaluate(VISIBLE, plot)
    tab.locator(f"#plot-{plot} .legendtoggle").first.click(force=True)
    until(tab, "(id) => document.getElementById('plot-' + id)._fullData.some((one) => one.visible === 'legendonly')", plot)
    after = tab.evaluate(VISIBLE, plot)
    tab.locator(f"#plot-{plot} .legendtoggle").first.click(force=True)
    return {"before": before, "after": after}


def choose(tab):
    """Chooses the last engine or worker wherever there are several."""
    seen = {}
    for choice in tab.locator("select[data-plot]").all():
        plot = choice.get_attribute("data-plot")
        names = choice.locator("option").all_text_contents()
        choice.select_option(index=len(names) - 1)
        shown = tab.locator(f"#figure-{plot} [data-view]:not([hidden])").get_attribute("data-view")
        seen[plot] = {"names": names, "shown": int(shown), "traces": tab.evaluate(DRAWN)[plot]["traces"]}
        choice.select_option(index=0)
    return seen


def refused(tab):
    """Tries what the page's policy must not allow: a connection, and a script."""
    return tab.evaluate(
        """async () => {
            const script = document.createElement('script');
            script.textContent = 'window.ran = true';
            document.head.append(script);
            const image = new Image();
            const loaded = await new Promise((done) => {
                image.onload = () => done(true);
                image.onerror = () => done(false);
                image.src = 'http://127.0.0.1:9/x.png';
            });
            const fetched = await fetch('http://127.0.0.1:9/').then(() => true, () => false);
            return {ran: window.ran === true, loaded, fetched, alerted: window.alerted === true};
        }"""
    )


def full(tab, path):
    """A screenshot of the whole page, if one is asked for."""
    if path is None:
        return
    tab.evaluate("scrollTo({top: 0, behavior: 'instant'})")
    tab.screenshot(path=path, full_page=True)


def desktop(tab, out, paper, shot):
    """Everything that a mouse and a printer do."""
    out["plots"] = drawn = tab.evaluate(DRAWN)
    out["title"] = tab.title()
    out["text"] = tab.locator("main").inner_text()
    full(tab, shot("desktop"))
    out["hover"] = {
        plot: hover(tab, plot, drawn[plot]["traces"][0]["name"]) for plot in ("passes", "requests") if plot in drawn
    }
    out["zoom"] = zoom(tab, "passes", "batch")
    out["legend"] = legend(tab, "passes")
    out["choices"] = choose(tab)
    tab.pdf(path=paper, prefer_css_page_size=True)
    out["pdf_bytes"] = paper.stat().st_size
    tab.emulate_media(media="print")
    until(tab, f"() => Object.values(({DRAWN})()).every((plot) => plot.svg < 700)")
    out["print"] = tab.evaluate(DRAWN)
    out["print_background"] = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    full(tab, shot("print"))


def phone(tab, out, shot):
    """A narrow screen, in the dark."""
    out["overflow"] = tab.evaluate(OVERFLOW)
    out["phone_plots"] = tab.evaluate(DRAWN)
    out["dark_background"] = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    full(tab, shot("phone-dark"))
    tab.locator("#theme").tap()
    out["light_background"] = tab.evaluate("getComputedStyle(document.body).backgroundColor")


def main(page_path, shots, folder):
    out = {}
    screen = {"viewport": {"width": 1280, "height": 900}}
    small = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True, "device_scale_factor": 2}

    def shot(name):
        return folder / f"{name}.png" if shots else None

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        tab, out["desktop"] = opened(browser, page_path, **screen)
        desktop(tab, out, folder / "page.pdf", shot)
        # What is refused is told on the console: only what was said before counts.
        out["desktop"] = json.loads(json.dumps(out["desktop"]))
        out["refused"] = refused(tab)
        tab.close()
        tab, out["phone"] = opened(browser, page_path, color_scheme="dark", **small)
        phone(tab, out, shot)
        tab.close()
        if shots:
            tab, _ = opened(browser, page_path, color_scheme="dark", **screen)
            full(tab, shot("dark"))
        browser.close()
    print(json.dumps(out))


if __name__ == "__main__":
    if len(sys.argv) > 2:
        kept = Path(sys.argv[2])
        kept.mkdir(parents=True, exist_ok=True)
        main(sys.argv[1], True, kept)
    else:
        with tempfile.TemporaryDirectory() as passing:
            main(sys.argv[1], False, Path(passing))

//! The check on small trees that are made for it.

use std::io::Write as _;
use std::path::Path;

use proptest::prelude::*;

use super::{Answer, CheckError, Report, check, python};
use crate::catalog::Catalog;

const REQUEST: &str = r#"
import enum
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, TYPE_CHECKING

if TYPE_CHECKING:
    from vllm.pool import Pool

class Base:
    def __init__(self, pool: "Pool"):
        self.pool = pool
        self.first, (self.second, _) = 1, (2, 3)
        for self.counted in range(3):
            pass

    @property
    def computed(self):
        return 1

    @cached_property
    def kept(self):
        return 1

class Request(Base):
    shared = 1
    declared: int

    def work(self, tokens, *args, only=None, **more) -> "Shape | None":
        def inner():
            self.late = 1
        return None

    @classmethod
    def make(cls): ...

class Wider(Request):
    def __init__(self):
        self.heap = []

class Shape(NamedTuple):
    width: int
    height: int

@dataclass
class Row:
    number: int = 0
    rows: list["Row"] = None
"#;

const POOL: &str = r"
from .request import Request as Again, Row
from elsewhere import Strange

class Queue:
    __slots__ = ('head', 'tail')

class Pool(Strange):
    def __init__(self):
        self.queue = Queue()
        self.row: Row = make()

class Free:
    def __init__(self):
        self.queue = Queue()
        self.all: tuple[list[Row], ...] = ()

    @wrapped(1)
    def get(self, number: int) -> list[Row]:
        setattr(self, 'x', 1)

def plain(rows: dict[str, Row]): ...
made = object()
";

fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join("vllm").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    folder
}

fn sources() -> tempfile::TempDir {
    tree(&[
        ("__init__.py", ""),
        ("_version.py", "__version__ = version = '0.20.1'\n"),
        ("request.py", REQUEST),
        ("pool.py", POOL),
    ])
}

fn catalog(methods: &str) -> Catalog {
    toml::from_str(&format!("range = \">=0.8.5, <0.34.0\"\n{methods}")).unwrap()
}

fn method(target: &str, more: &str) -> String {
    let (module, qualname) = target.split_once(':').unwrap();
    format!(
        "[[method]]\nid = \"m\"\nmodule = \"{module}\"\nqualname = \"{qualname}\"\nevents = \"return\"\n{more}\n"
    )
}

/// The answer for one method.
fn of_method(target: &str) -> Report {
    check(&catalog(&method(target, "")), sources().path(), None).unwrap()
}

/// The answer for one field of a method, and its reason.
fn of_field(target: &str, path: &str) -> (Answer, String) {
    let more = format!("fields = [{{ name = \"f\", path = \"{path}\" }}]");
    let report = check(&catalog(&method(target, &more)), sources().path(), None).unwrap();
    let told = report.methods[0].fields[0].told.clone();
    (told.answer, told.detail)
}

#[test]
fn a_method_is_found_in_its_class_above_it_and_under_another_name() {
    let answer = |target: &str| of_method(target).methods[0].told.answer;
    assert_eq!(answer("vllm.request:Request.work"), Answer::Found);
    assert_eq!(answer("vllm.request:Wider.work"), Answer::Found);
    assert_eq!(answer("vllm.pool:Again.work"), Answer::Found);
    assert_eq!(answer("vllm.pool:plain"), Answer::Found);
    assert_eq!(answer("vllm.request:Request.gone"), Answer::NotFound);
    assert_eq!(answer("vllm.request:Gone.work"), Answer::NotFound);
    assert_eq!(answer("vllm.gone:Request.work"), Answer::NotFound);
    assert_eq!(answer("vllm.request:Request"), Answer::NotFound);
    assert_eq!(answer("vllm.pool:Strange.work"), Answer::CannotBeTold);
    assert_eq!(answer("vllm.pool:Pool.work"), Answer::CannotBeTold);
    let decorated = &of_method("vllm.pool:Free.get").methods[0];
    assert_eq!(decorated.decorators, ["wrapped"]);
}

#[test]
fn arguments_are_those_of_the_signature() {
    let answer = |path: &str| of_field("vllm.request:Request.work", path).0;
    assert_eq!(answer("tokens"), Answer::Found);
    assert_eq!(answer("only:bool"), Answer::Found);
    assert_eq!(answer("arg.1"), Answer::Found);
    assert_eq!(answer("arg.7"), Answer::CannotBeTold);
    let (answer, detail) = of_field("vllm.request:Request.work", "token");
    assert_eq!(answer, Answer::NotFound);
    assert!(detail.contains("tokens, only"), "{detail}");
    assert_eq!(
        of_field("vllm.request:Request.make", "self.declared").0,
        Answer::NotFound
    );
    assert_eq!(of_field("vllm.pool:plain", "arg.1").0, Answer::NotFound);
}

#[test]
fn attributes_are_those_that_are_assigned_or_declared() {
    let told = |path: &str| of_field("vllm.request:Request.work", path);
    for path in [
        "self.first",
        "self.second",
        "self.counted",
        "self.late",
        "self.declared",
        "self.heap:len",
        "self.pool.queue.head",
        "self.pool.row.number",
        "self.pool.row.rows[*].number:ints",
        "ret[1]",
    ] {
        assert_eq!(told(path).0, Answer::Found, "{path}: {}", told(path).1);
    }
    for (path, why) in [
        ("self.gone", "no attribute `gone`"),
        ("self.computed", "property"),
        ("self.work", "method"),
        ("self.pool.queue.middle", "no attribute `middle`"),
        ("self.pool.row.rows.number", "collection"),
        ("ret.width", "named tuple"),
        ("ret[2]", "2 items"),
    ] {
        let (answer, detail) = told(path);
        assert_eq!(answer, Answer::NotFound, "{path}: {detail}");
        assert!(detail.contains(why), "{path}: {detail}");
    }
    for path in [
        "self.shared",
        "self.kept",
        "self.pool.other",
        "self.first.of_what",
        "closure.x",
    ] {
        assert_eq!(
            told(path).0,
            Answer::CannotBeTold,
            "{path}: {}",
            told(path).1
        );
    }
    assert_eq!(
        of_field("vllm.pool:Free.get", "self.x").0,
        Answer::CannotBeTold
    );
    assert_eq!(
        of_field("vllm.pool:Free.get", "self.all[0][*].number:ints").0,
        Answer::Found
    );
    assert_eq!(
        of_field("vllm.pool:Free.get", "self.all[*].number:ints").0,
        Answer::NotFound
    );
    assert_eq!(
        of_field("vllm.pool:plain", "rows['a'].gone").0,
        Answer::NotFound
    );
    assert_eq!(of_field("vllm.pool:plain", "global.made").0, Answer::Found);
    assert_eq!(
        of_field("vllm.pool:plain", "vllm.request::gone").0,
        Answer::NotFound
    );
}

#[test]
fn a_class_of_the_catalogue_must_be_there_and_is_believed() {
    let more = "classes = { \"tokens\" = \"vllm.request:Row\", \"only\" = \"vllm.request:Gone\" }\n\
                fields = [{ name = \"a\", path = \"tokens.number\" }, { name = \"b\", path = \"only.x\" }]";
    let report = check(
        &catalog(&method("vllm.request:Request.work", more)),
        sources().path(),
        None,
    )
    .unwrap();
    let method = &report.methods[0];
    let answers = |parts: &[super::Part]| {
        parts
            .iter()
            .map(|part| part.told.answer)
            .collect::<Vec<_>>()
    };
    assert_eq!(answers(&method.classes), [Answer::NotFound, Answer::Found]);
    assert_eq!(
        answers(&method.fields),
        [Answer::Found, Answer::CannotBeTold]
    );
    assert_eq!(
        (
            report.totals.found,
            report.totals.not_found,
            report.totals.cannot_be_told
        ),
        (3, 1, 1)
    );
}

#[test]
fn only_what_holds_for_the_version_is_asked_for() {
    let methods = method("vllm.request:Request.work", "versions = \"<0.20.0\"")
        + &method("vllm.request:Gone.work", "versions = \"<0.20.0\"");
    let report = check(&catalog(&methods), sources().path(), None).unwrap();
    assert_eq!((report.vllm.as_str(), report.methods.len()), ("0.20.1", 0));
    let beyond: Vec<_> = report
        .beyond_range
        .iter()
        .map(|method| &method.qualname)
        .collect();
    assert_eq!(beyond, ["Request.work"]);
    let older = check(&catalog(&methods), sources().path(), Some("0.19.0")).unwrap();
    assert_eq!(older.methods.len(), 2);
    assert!(matches!(
        check(&catalog(&methods), sources().path(), Some("main")),
        Err(CheckError::OddVersion(_))
    ));
    let unversioned = tree(&[("__init__.py", ""), ("v1/__init__.py", "")]);
    assert!(matches!(
        check(&catalog(&methods), unversioned.path(), None),
        Err(CheckError::NoVersion)
    ));
}

#[test]
fn a_wheel_is_read_like_a_folder() {
    let folder = sources();
    let wheel = folder.path().join("vllm-0.20.1-py3-none-any.whl");
    let mut archive = zip::ZipWriter::new(std::fs::File::create(&wheel).unwrap());
    let options = zip::write::SimpleFileOptions::default();
    let metadata = "Metadata-Version: 2.1\nName: vllm\nVersion: 0.20.1.post3\n\nVersion: no\n";
    for (name, text) in [
        ("vllm/__init__.py", ""),
        ("vllm/request.py", REQUEST),
        ("vllm/pool.py", POOL),
        ("vllm-0.20.1.dist-info/METADATA", metadata),
    ] {
        archive.start_file(name, options).unwrap();
        archive.write_all(text.as_bytes()).unwrap();
    }
    archive.finish().unwrap();
    let report = check(&catalog(&method("vllm.pool:Again.work", "")), &wheel, None).unwrap();
    assert_eq!(
        (report.vllm.as_str(), report.source),
        ("0.20.1.post3", "wheel")
    );
    assert_eq!(report.methods[0].told.answer, Answer::Found);
}

#[test]
fn what_cannot_be_understood_is_not_said_to_be_missing() {
    let broken = tree(&[
        ("__init__.py", ""),
        ("version.py", "__version__ = '0.20.1'"),
        ("request.py", "class Request(:\n    def )(\n"),
        ("binary.py", "x = 1"),
        ("circle.py", "from vllm.round import Request"),
        ("round.py", "from vllm.circle import Request"),
    ]);
    std::fs::write(broken.path().join("vllm/binary.py"), b"\xff\xfe").unwrap();
    for module in ["request", "binary", "circle"] {
        let target = format!("vllm.{module}:Request.work");
        let report = check(&catalog(&method(&target, "")), broken.path(), None).unwrap();
        assert_eq!(
            report.methods[0].told.answer,
            Answer::CannotBeTold,
            "{module}"
        );
    }
}

#[test]
fn no_nesting_is_too_deep() {
    let deep = 60_000;
    for text in [
        "(".repeat(deep) + &")".repeat(deep),
        "-".repeat(deep) + "1",
        "a".to_owned() + &".a".repeat(deep),
        "x = ".repeat(deep) + "1",
        "class A:\n def f(self): ".to_owned() + &"[".repeat(deep),
        (0..900).fold(String::new(), |text, level| {
            text + &" ".repeat(level) + "if x:\n"
        }),
        (0..900).fold(String::new(), |text, level| {
            text + &" ".repeat(level) + "class A:\n"
        }),
        (0..900).fold(String::new(), |text, level| {
            text + &" ".repeat(level) + "def f(self):\n"
        }),
    ] {
        let _answer = python::parse(&text);
        let _annotation = python::annotation(&text[..text.len().min(500)]);
    }
}

#[test]
fn the_demo_target_is_what_the_catalogue_expects() {
    let demo = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../python/demo"));
    let report = check(&Catalog::vllm(), demo, None).unwrap();
    let fields = report.methods.iter().flat_map(|method| &method.fields);
    let missing: std::collections::BTreeSet<_> = fields
        .filter(|field| field.told.answer == Answer::NotFound)
        .map(|field| field.name.as_str())
        .collect();
    // It has no queue by priority, no experts, no encoder, no ranks and no speculative decoding. Its `CUDAGraphMode` is
    // an enumeration, whose members have their names.
    assert!(missing.contains("waiting_heap"), "{missing:?}");
    assert!(
        missing.iter().all(|name| {
            ["waiting_heap", "model_experts", "multimodal", "rank"].contains(name)
                || name.starts_with("spec_")
        }),
        "{missing:?}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_text_makes_it_panic(text in "(class|def|self|[.=:(),\\[\\]@*|'\" \n]|[a-z]{1,3}|\n +|[0-9]|é){0,80}") {
        let _answer = python::parse(&text);
        let _annotation = python::annotation(&text);
    }
}

//! Text to [`Path`].

use super::syntax::{Element, Kind, Path, Root, Step};

/// Steps of a path, at most.
const STEPS: usize = 32;
/// Bytes of a path, at most.
const LENGTH: usize = 1024;
/// Largest item index.
const INDEX: i32 = 1 << 20;

/// Why a text is no path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no field path: {what} at byte {at}")]
pub struct ParseError {
    /// The text.
    pub text: String,
    /// What is wrong.
    pub what: &'static str,
    /// Where.
    pub at: usize,
}

/// Parses a field path; the grammar is described in [`super`].
pub fn parse(text: &str) -> Result<Path, ParseError> {
    let mut parser = Parser { text, at: 0 };
    parser.path().map_err(|what| ParseError {
        text: text.to_owned(),
        what,
        at: parser.at,
    })
}

struct Parser<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Parser<'t> {
    fn rest(&self) -> &'t str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn accept(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    fn expect(&mut self, token: &str, what: &'static str) -> Result<(), &'static str> {
        if self.accept(token) {
            Ok(())
        } else {
            Err(what)
        }
    }

    fn while_matching(&mut self, matches: impl Fn(u8) -> bool) -> &'t str {
        let rest = self.rest();
        let length = rest.bytes().take_while(|byte| matches(*byte)).count();
        self.at += length;
        rest.get(..length).unwrap_or_default()
    }

    /// A Python identifier. (Those outside ASCII are not supported.)
    fn name(&mut self) -> Result<&'t str, &'static str> {
        if self
            .rest()
            .starts_with(|first: char| first.is_ascii_digit())
        {
            return Err("a name cannot begin with a digit");
        }
        let name = self.while_matching(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if name.is_empty() {
            Err("expected a name")
        } else {
            Ok(name)
        }
    }

    fn number(&mut self) -> Result<i32, &'static str> {
        let digits = self.while_matching(|byte| byte.is_ascii_digit());
        digits
            .parse()
            .ok()
            .filter(|index| (0..=INDEX).contains(index))
            .ok_or("expected an index, 0 or more")
    }

    fn path(&mut self) -> Result<Path, &'static str> {
        if self.text.len() > LENGTH {
            return Err("it is too long");
        }
        let root = self.root()?;
        let mut steps = Vec::new();
        let mut element = None;
        loop {
            if self.accept("[*]") {
                element = Some(if self.accept(".") {
                    Element::Attribute(self.name()?.to_owned())
                } else {
                    Element::Item
                });
                break;
            }
            let Some(step) = self.step()? else { break };
            steps.push(step);
            if steps.len() > STEPS {
                return Err("it has too many steps");
            }
        }
        let kind = self.kind(element.is_some())?;
        if !self.rest().is_empty() {
            return Err(if element.is_some() {
                "nothing but one name and a kind can follow [*]"
            } else {
                "unexpected text"
            });
        }
        let element = element.or(kind.is_collection().then_some(Element::Item));
        Ok(Path {
            root,
            steps,
            element,
            kind,
        })
    }

    fn root(&mut self) -> Result<Root, &'static str> {
        if let Some((module, _)) = self.rest().split_once("::") {
            let dotted = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'.';
            if module.is_empty() || !module.bytes().all(dotted) {
                return Err("expected a module before ::");
            }
            self.at += module.len() + 2;
            return Ok(Root::Global(
                Some(module.to_owned()),
                self.name()?.to_owned(),
            ));
        }
        let name = self.name()?;
        Ok(match name {
            "self" => Root::SelfArgument,
            "ret" => Root::Result,
            "arg" => {
                self.expect(".", "expected .NAME or .N after arg")?;
                if self
                    .rest()
                    .starts_with(|first: char| first.is_ascii_digit())
                {
                    Root::Position(self.number()? as u32)
                } else {
                    Root::Argument(self.name()?.to_owned())
                }
            }
            "global" => {
                self.expect(".", "expected .NAME after global")?;
                Root::Global(None, self.name()?.to_owned())
            }
            "closure" => {
                self.expect(".", "expected .NAME after closure")?;
                Root::Closure(self.name()?.to_owned())
            }
            "local" => {
                self.expect(".", "expected .NAME after local")?;
                Root::Local(self.name()?.to_owned())
            }
            name => Root::Argument(name.to_owned()),
        })
    }

    fn step(&mut self) -> Result<Option<Step>, &'static str> {
        if self.accept(".") {
            return Ok(Some(Step::Attribute(self.name()?.to_owned())));
        }
        if !self.accept("[") {
            return Ok(None);
        }
        let step = if self.accept("'") {
            let key = self
                .while_matching(|byte| byte != b'\'' && byte.is_ascii() && byte >= b' ')
                .to_owned();
            self.expect("'", "expected ' after the key")?;
            Step::DictValue(key)
        } else if self.accept("list:") {
            Step::ListItem(self.number()?)
        } else {
            Step::TupleItem(self.number()?)
        };
        self.expect("]", "expected ]")?;
        Ok(Some(step))
    }

    fn kind(&mut self, of_items: bool) -> Result<Kind, &'static str> {
        if !self.accept(":") {
            return Ok(if of_items { Kind::Ints } else { Kind::Int });
        }
        let start = self.at;
        let name = self.name()?;
        let kind = Kind::ALL.iter().find(|kind| kind.name() == name).copied();
        let fits =
            |kind: &Kind| !of_items || matches!(kind, Kind::Ints | Kind::Strs | Kind::Addresses);
        kind.filter(fits).ok_or_else(|| {
            self.at = start;
            if kind.is_some() {
                "after [*] the kind is ints, strs or addrs"
            } else {
                "no such kind"
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::Shape;

    fn path(root: Root, steps: Vec<Step>, element: Option<Element>, kind: Kind) -> Path {
        Path {
            root,
            steps,
            element,
            kind,
        }
    }

    fn attribute(name: &str) -> Step {
        Step::Attribute(name.to_owned())
    }

    #[test]
    fn paths() {
        let parsed = |text| parse(text).unwrap();
        assert_eq!(
            parsed("self.kv_cache_manager.block_pool.num_gpu_blocks"),
            path(
                Root::SelfArgument,
                ["kv_cache_manager", "block_pool", "num_gpu_blocks"]
                    .map(attribute)
                    .into(),
                None,
                Kind::Int
            )
        );
        assert_eq!(
            parsed("ret:none"),
            path(Root::Result, vec![], None, Kind::None)
        );
        assert_eq!(
            parsed("ret.scheduled_new_reqs[*].req_id:strs"),
            path(
                Root::Result,
                vec![attribute("scheduled_new_reqs")],
                Some(Element::Attribute("req_id".into())),
                Kind::Strs
            )
        );
        assert_eq!(
            parsed("blocks[*]"),
            path(
                Root::Argument("blocks".into()),
                vec![],
                Some(Element::Item),
                Kind::Ints
            )
        );
        assert_eq!(parsed("ids:ints"), parsed("arg.ids[*]:ints"));
        assert_eq!(
            parsed("arg.1[0][list:3]['k y']:bytes").steps,
            [
                Step::TupleItem(0),
                Step::ListItem(3),
                Step::DictValue("k y".into())
            ]
        );
        assert_eq!(
            parsed("vllm.envs::FLAG:bool").root,
            Root::Global(Some("vllm.envs".into()), "FLAG".into())
        );
        assert_eq!(parsed("global.x").root, Root::Global(None, "x".into()));
        assert_eq!(parsed("closure.cell.a").root, Root::Closure("cell".into()));
        assert_eq!(
            parsed("ret.num_scheduled_tokens:items").kind.shape(),
            Shape::Pairs
        );
    }

    #[test]
    fn what_is_no_path() {
        for text in [
            "",
            ".",
            "self.",
            "self..a",
            "self.a:",
            "self.a:nope",
            "self[",
            "self[-1]",
            "self[99999999]",
            "self['a]",
            "a b",
            "1abc",
            "arg",
            "arg.",
            "x[*].a.b",
            "x[*]:items",
            "x[*]:len",
            "x[*][*]",
            "::x",
            "a b::c",
            "self.é",
            "ret:int:int",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert_eq!(
            parse("self.a:nope").unwrap_err().to_string(),
            "`self.a:nope` is no field path: no such kind at byte 7"
        );
        assert!(parse(&format!("self{}", ".a".repeat(40))).is_err());
    }

    proptest! {
        #[test]
        fn never_panics(text in ".{0,64}") {
            let _ = parse(&text);
        }

        #[test]
        fn what_is_printed_parses_to_the_same(text in "(self|ret|x|arg\\.2|global\\.G|m\\.n::G|closure\\.c|local\\.v)(\\.[a-z_]{1,5}|\\[[0-9]\\]|\\[list:[0-9]\\]|\\['[ -&]{0,4}'\\]){0,5}(\\[\\*\\](\\.[a-z]{1,3})?(:(ints|strs|addrs))?|:(int|float|bool|str|bytes|none|len|addr|ints|strs|addrs|items))?") {
            let path = parse(&text).unwrap();
            prop_assert_eq!(parse(&path.to_string()), Ok(path));
        }
    }
}

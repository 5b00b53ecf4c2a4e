//! Which servers: label matchers over `profilemate_server_info`, as in PromQL.

/// Why a selector is not one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{part}` is not a matcher such as `model=\"NAME\"`, `pod=~\"chat-.*\"` or `namespace!=dev`"
)]
pub struct Malformed {
    /// The part that is wrong.
    pub part: String,
}

/// Matchers; none match every server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    matchers: Vec<String>,
}

const OPERATORS: [&str; 4] = ["=~", "!~", "!=", "="];

impl Selector {
    /// Reads `name=value` parts with commas between, in braces or without, values in quotes or without.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let mut rest = text.trim();
        if let Some(inner) = rest.strip_prefix('{') {
            rest = inner
                .strip_suffix('}')
                .ok_or_else(|| malformed(text))?
                .trim();
        }
        let mut matchers = Vec::new();
        while !rest.is_empty() {
            let (matcher, after) = one(rest)?;
            matchers.push(matcher);
            rest = after;
        }
        Ok(Self { matchers })
    }

    /// Whether it matches every server.
    pub fn is_empty(&self) -> bool {
        self.matchers.is_empty()
    }

    /// Those that match this one and `other`.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        let matchers = self.matchers.iter().chain(&other.matchers);
        Self {
            matchers: matchers.cloned().collect(),
        }
    }

    /// As PromQL has it, with the braces; nothing where it matches every server.
    pub fn braces(&self) -> String {
        if self.is_empty() {
            return String::new();
        }
        format!("{{{}}}", self.matchers.join(","))
    }
}

fn malformed(part: &str) -> Malformed {
    Malformed {
        part: part.trim().to_owned(),
    }
}

/// Reads the first matcher, and gives what comes after its comma.
fn one(text: &str) -> Result<(String, &str), Malformed> {
    let wrong = || malformed(text);
    let at = text.find(['=', '!']).ok_or_else(wrong)?;
    let name = text[..at].trim();
    let operator = OPERATORS
        .into_iter()
        .find(|operator| text[at..].starts_with(operator))
        .ok_or_else(wrong)?;
    if !is_label(name) {
        return Err(wrong());
    }
    let value = text[at + operator.len()..].trim_start();
    let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''));
    let (value, after) = if let Some(quote) = quote {
        quoted(&value[1..], quote).ok_or_else(wrong)?
    } else {
        let end = value.find(',').unwrap_or(value.len());
        (value[..end].trim().to_owned(), &value[end..])
    };
    let after = after.trim_start();
    let after = match after.strip_prefix(',') {
        Some(after) => after.trim_start(),
        None if after.is_empty() => after,
        None => return Err(wrong()),
    };
    let value = value.replace('\\', "\\\\").replace('"', "\\\"");
    if value.chars().any(char::is_control) {
        return Err(wrong());
    }
    Ok((format!("{name}{operator}\"{value}\""), after))
}

/// A value up to its closing quote, without the escapes, and what comes after it.
fn quoted(text: &str, quote: char) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        if c == quote {
            return Some((value, &text[at + 1..]));
        }
        let c = if c == '\\' { chars.next()?.1 } else { c };
        value.push(c);
    }
    None
}

fn is_label(name: &str) -> bool {
    let mut chars = name.chars();
    chars
        .next()
        .is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn braces(text: &str) -> String {
        Selector::parse(text).unwrap().braces()
    }

    #[test]
    fn matchers_are_read_with_and_without_quotes_and_braces() {
        assert_eq!(braces(""), "");
        assert_eq!(braces("{}"), "");
        assert_eq!(braces("model=opt-125m"), r#"{model="opt-125m"}"#);
        assert_eq!(
            braces(r#"{ pod=~"chat-.*" , namespace != dev }"#),
            r#"{pod=~"chat-.*",namespace!="dev"}"#
        );
        assert_eq!(braces(r#"a="x,y",b!~'z'"#), r#"{a="x,y",b!~"z"}"#);
        let both = Selector::parse("a=b").unwrap();
        let both = both.and(&Selector::parse("c=d").unwrap());
        assert_eq!(both.braces(), r#"{a="b",c="d"}"#);
    }

    #[test]
    fn a_value_cannot_leave_its_quotes() {
        assert_eq!(braces(r#"a='x"} or up{b="'"#), r#"{a="x\"} or up{b=\""}"#);
        assert_eq!(braces(r#"a="x\"y\\""#), r#"{a="x\"y\\"}"#);
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["model", "=x", "9a=b", "a=\"b", "a=\"b\"c=d", "{a=b", "a!b"] {
            assert!(Selector::parse(text).is_err(), "{text}");
        }
    }
}

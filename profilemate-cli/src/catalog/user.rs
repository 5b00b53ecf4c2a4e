//! `--method` and `--field`: the user's own additions to the catalogue.

use std::collections::BTreeMap;

use semver::VersionReq;

use super::{Events, Field, Method};

/// What is wrong with a `--method` or `--field`.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// Not `module:qualname`.
    #[error("`{0}` is not a method: write `package.module:Class.method`")]
    NotAMethod(String),
    /// Not `NAME=PATH`.
    #[error("`{0}` is not a field: write `NAME=PATH`, such as `queue=self.queue:len`")]
    NotAField(String),
    /// The same name twice for one method.
    #[error("the field name `{0}` is given twice")]
    Twice(String),
    /// A field without a method.
    #[error("`--field {0}` needs a `--method` that it belongs to")]
    NoMethod(String),
}

/// Makes methods of what was typed: every field belongs to every method given.
pub fn user_methods(methods: &[String], fields: &[String]) -> Result<Vec<Method>, Error> {
    let mut parsed: Vec<Field> = Vec::new();
    for text in fields {
        let (name, path) = text
            .split_once('=')
            .ok_or_else(|| Error::NotAField(text.clone()))?;
        if name.is_empty() || path.is_empty() {
            return Err(Error::NotAField(text.clone()));
        }
        if parsed.iter().any(|field| field.name == name) {
            return Err(Error::Twice(name.to_owned()));
        }
        parsed.push(Field {
            name: name.to_owned(),
            path: path.to_owned(),
            versions: VersionReq::STAR,
            optional: false,
        });
    }
    if let (true, Some(field)) = (methods.is_empty(), fields.first()) {
        return Err(Error::NoMethod(field.clone()));
    }
    methods
        .iter()
        .enumerate()
        .map(|(index, text)| {
            let (module, qualname) = text
                .split_once(':')
                .filter(|(module, qualname)| !module.is_empty() && !qualname.is_empty())
                .ok_or_else(|| Error::NotAMethod(text.clone()))?;
            Ok(Method {
                id: format!("user.{index}"),
                module: module.to_owned(),
                qualname: qualname.to_owned(),
                versions: VersionReq::STAR,
                events: Events::Return,
                operation: None,
                api_server: false,
                tables: vec!["methods".to_owned()],
                required: true,
                classes: BTreeMap::new(),
                fields: parsed.clone(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_and_its_fields_are_taken_as_typed() {
        let methods =
            user_methods(&["a.b:C.d".to_owned()], &["n=self.queue:len".to_owned()]).unwrap();
        assert_eq!(
            (methods[0].module.as_str(), methods[0].qualname.as_str()),
            ("a.b", "C.d")
        );
        assert_eq!(methods[0].fields[0].path, "self.queue:len");
    }

    #[test]
    fn what_is_malformed_is_named() {
        assert_eq!(
            user_methods(&["a.b".into()], &[]).unwrap_err(),
            Error::NotAMethod("a.b".into())
        );
        assert_eq!(
            user_methods(&["a:b".into()], &["x".into()]).unwrap_err(),
            Error::NotAField("x".into())
        );
        assert_eq!(
            user_methods(&[], &["x=y".into()]).unwrap_err(),
            Error::NoMethod("x=y".into())
        );
        let twice = user_methods(&["a:b".into()], &["x=y".into(), "x=z".into()]);
        assert_eq!(twice.unwrap_err(), Error::Twice("x".into()));
    }
}

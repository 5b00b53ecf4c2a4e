//! What a Python file defines: its classes with their methods and attributes, its functions, and its imports.
//!
//! A static look, with tree-sitter: it needs no recursion of ours or of its own, so that no nesting can overflow the
//! stack, and it goes on behind what it does not understand.

use std::ops::ControlFlow;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tree_sitter::{Node, ParseOptions, Parser};

use super::assigned::assigned;
use super::expression::{Expression, dotted, string, text};
use super::model::{Bound, Class, Function, Import, Member, Module};

/// Time for one file.
const PATIENCE: Duration = Duration::from_secs(10);
/// Nodes of one file that are looked at.
const NODES: usize = 4_000_000;
/// Levels of classes in classes.
const CLASSES: usize = 4;

/// What `source` defines; an error is a reason in words.
pub(super) fn parse(source: &str) -> Result<Module, &'static str> {
    let tree = parsed(source)?;
    let root = tree.root_node();
    if root.descendant_count() > NODES {
        return Err("it is too large");
    }
    let mut module = Module {
        vague: root
            .has_error()
            .then_some("parts of the file could not be understood"),
        ..Module::default()
    };
    for statement in statements(root) {
        top_level(&mut module, statement, source);
    }
    if module.names.contains_key("__getattr__") {
        module.vague = Some("the module makes names when they are asked for (`__getattr__`)");
    }
    Ok(module)
}

/// An annotation given as text.
pub(super) fn annotation(source: &str) -> Expression {
    const LENGTH: usize = 512;
    if source.len() > LENGTH {
        return Expression::Other;
    }
    let Ok(tree) = parsed(source) else {
        return Expression::Other;
    };
    let expression = tree
        .root_node()
        .named_child(0)
        .filter(|statement| statement.kind() == "expression_statement")
        .and_then(|statement| statement.named_child(0));
    expression.map_or(Expression::Other, |node| Expression::of(node, source))
}

fn parsed(source: &str) -> Result<tree_sitter::Tree, &'static str> {
    let mut parser = Parser::new();
    parser
        .set_language(&tree_sitter_python::LANGUAGE.into())
        .map_err(|_error| "the parser cannot be used")?;
    let began = Instant::now();
    let mut progress = |_: &tree_sitter::ParseState| {
        if began.elapsed() > PATIENCE {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    };
    let options = ParseOptions::new().progress_callback(&mut progress);
    let bytes = source.as_bytes();
    parser
        .parse_with_options(
            &mut |at, _| bytes.get(at..).unwrap_or_default(),
            None,
            Some(options),
        )
        .ok_or("it takes too long to parse")
}

/// The statements of a body, with those inside of `if`, `try`, `with` and loops.
fn statements(body: Node<'_>) -> Vec<Node<'_>> {
    let mut found = Vec::new();
    let mut open = vec![body];
    while let Some(node) = open.pop() {
        let mut cursor = node.walk();
        let children: Vec<Node<'_>> = node.named_children(&mut cursor).collect();
        for child in children.into_iter().rev() {
            match child.kind() {
                "if_statement" | "elif_clause" | "else_clause" | "try_statement"
                | "except_clause" | "finally_clause" | "with_statement" | "for_statement"
                | "while_statement" | "block" => open.push(child),
                kind if kind.ends_with("_statement") || kind.ends_with("_definition") => {
                    found.push(child);
                }
                _ => {}
            }
        }
    }
    found.sort_by_key(Node::start_byte);
    found
}

/// A definition without its decorators, and their names.
fn undecorated<'t>(node: Node<'t>, source: &str) -> (Node<'t>, Vec<String>) {
    if node.kind() != "decorated_definition" {
        return (node, Vec::new());
    }
    let mut cursor = node.walk();
    let decorators = node
        .named_children(&mut cursor)
        .filter(|child| child.kind() == "decorator")
        .map(|decorator| {
            let inner = decorator
                .named_child(0)
                .map(|node| Expression::of(node, source));
            inner
                .as_ref()
                .and_then(Expression::name)
                .unwrap_or("?")
                .to_owned()
        })
        .collect();
    let definition = node.child_by_field_name("definition").unwrap_or(node);
    (definition, decorators)
}

fn top_level(module: &mut Module, statement: Node<'_>, source: &str) {
    let (node, decorators) = undecorated(statement, source);
    let mut bind = |name: &str, bound: Bound| {
        let all = module.names.entry(name.to_owned()).or_default();
        // What is defined here counts for more than an import that it may replace.
        match bound {
            Bound::Class(_) | Bound::Function(_) => all.insert(0, bound),
            Bound::Import(_) | Bound::Value(_) => all.push(bound),
        }
    };
    match node.kind() {
        "class_definition" => {
            bind(
                name_of(node, source),
                Bound::Class(Rc::new(class(node, decorators, source, 0))),
            );
        }
        "function_definition" => {
            bind(
                name_of(node, source),
                Bound::Function(Rc::new(function(node, decorators, source))),
            );
        }
        "import_statement" | "import_from_statement" => {
            for (name, import) in imports(node, source) {
                match name {
                    Some(name) => {
                        module
                            .names
                            .entry(name)
                            .or_default()
                            .push(Bound::Import(import));
                    }
                    None => module.stars.push(import),
                }
            }
        }
        "expression_statement" => {
            if let Some((name, value)) = assignment(node, source) {
                bind(&name, Bound::Value(value));
            }
        }
        _ => {}
    }
}

fn name_of<'s>(node: Node<'_>, source: &'s str) -> &'s str {
    node.child_by_field_name("name")
        .map_or("", |name| text(name, source))
}

/// `name = value` or `name: annotation = value`: the name, and the annotation or else the value.
fn assignment(statement: Node<'_>, source: &str) -> Option<(String, Expression)> {
    let node = statement.named_child(0)?;
    let left = node
        .child_by_field_name("left")
        .filter(|left| node.kind() == "assignment" && left.kind() == "identifier")?;
    let value = node
        .child_by_field_name("type")
        .or_else(|| node.child_by_field_name("right"))
        .map_or(Expression::Other, |node| Expression::of(node, source));
    Some((text(left, source).to_owned(), value))
}

/// Bound names and what they import; no name is `*`.
fn imports(node: Node<'_>, source: &str) -> Vec<(Option<String>, Import)> {
    let mut cursor = node.walk();
    let from = node.child_by_field_name("module_name");
    let (level, module) = match from {
        Some(from) => {
            let written = text(from, source);
            let name = written.trim_start_matches('.');
            (written.len() - name.len(), name.trim().to_owned())
        }
        None => (0, String::new()),
    };
    let mut found: Vec<(Option<String>, Import)> = node
        .children_by_field_name("name", &mut cursor)
        .filter_map(|name| {
            let (path, alias) = if name.kind() == "aliased_import" {
                let alias = name.child_by_field_name("alias")?;
                (name.child_by_field_name("name")?, Some(text(alias, source)))
            } else {
                (name, None)
            };
            let path = dotted(path, source)?;
            if from.is_some() {
                let bound = alias.unwrap_or(&path).to_owned();
                let import = Import {
                    level,
                    module: module.clone(),
                    name: Some(path),
                };
                return Some((Some(bound), import));
            }
            let top = path.split('.').next().unwrap_or_default().to_owned();
            let (bound, module) = match alias {
                Some(alias) => (alias.to_owned(), path),
                None => (top.clone(), top),
            };
            Some((
                Some(bound),
                Import {
                    level: 0,
                    module,
                    name: None,
                },
            ))
        })
        .collect();
    let star = node
        .named_children(&mut node.walk())
        .any(|child| child.kind() == "wildcard_import");
    if star {
        found.push((
            None,
            Import {
                level,
                module,
                name: None,
            },
        ));
    }
    found
}

fn class(node: Node<'_>, decorators: Vec<String>, source: &str, depth: usize) -> Class {
    let mut class = Class {
        decorators,
        broken: node.has_error(),
        ..Class::default()
    };
    if let Some(bases) = node.child_by_field_name("superclasses") {
        let mut cursor = bases.walk();
        class.bases = bases
            .named_children(&mut cursor)
            .filter(|base| base.kind() != "keyword_argument" && base.kind() != "comment")
            .map(|base| Expression::of(base, source))
            .collect();
    }
    let Some(body) = node.child_by_field_name("body") else {
        return class;
    };
    for statement in statements(body) {
        member(&mut class, statement, source, depth);
    }
    class
}

fn member(class_: &mut Class, statement: Node<'_>, source: &str, depth: usize) {
    let (node, decorators) = undecorated(statement, source);
    match node.kind() {
        "function_definition" => {
            let name = name_of(node, source).to_owned();
            let function = function(node, decorators, source);
            class_.vague |= matches!(name.as_str(), "__getattr__" | "__getattribute__");
            if !function.is_decorated(&["staticmethod", "classmethod"])
                && let (Some((own, _)), Some(body)) = (
                    function.parameters.first(),
                    node.child_by_field_name("body"),
                )
            {
                assigned(class_, body, own, &name, source);
            }
            // A setter comes after its property and has the same name.
            if !function.is_decorated(&["setter", "deleter"]) {
                class_
                    .members
                    .insert(name, Member::Function(Rc::new(function)));
            }
        }
        "class_definition" if depth < CLASSES => {
            let inner = class(node, decorators, source, depth + 1);
            class_.members.insert(
                name_of(node, source).to_owned(),
                Member::Class(Rc::new(inner)),
            );
        }
        "expression_statement" => {
            let Some(node) = node
                .named_child(0)
                .filter(|node| node.kind() == "assignment")
            else {
                return;
            };
            let Some(left) = node
                .child_by_field_name("left")
                .filter(|left| left.kind() == "identifier")
            else {
                return;
            };
            let name = text(left, source);
            let right = node.child_by_field_name("right");
            if let (true, Some(right)) = (name == "__slots__", right) {
                class_.slots = strings(right, source);
                return;
            }
            let annotation = node
                .child_by_field_name("type")
                .map(|node| Expression::of(node, source));
            class_.members.insert(
                name.to_owned(),
                Member::Value {
                    annotation,
                    valued: right.is_some(),
                },
            );
        }
        _ => {}
    }
}

fn strings(node: Node<'_>, source: &str) -> Vec<String> {
    if node.kind() == "string" {
        return vec![string(node, source)];
    }
    let mut cursor = node.walk();
    node.named_children(&mut cursor)
        .filter(|child| child.kind() == "string")
        .map(|child| string(child, source))
        .collect()
}

fn function(node: Node<'_>, decorators: Vec<String>, source: &str) -> Function {
    let mut function = Function {
        decorators,
        returns: node
            .child_by_field_name("return_type")
            .map(|node| Expression::of(node, source)),
        ..Function::default()
    };
    let Some(parameters) = node.child_by_field_name("parameters") else {
        return function;
    };
    let mut by_keyword_only = false;
    let mut cursor = parameters.walk();
    for parameter in parameters.named_children(&mut cursor) {
        let annotation = parameter
            .child_by_field_name("type")
            .map(|node| Expression::of(node, source));
        let name = match parameter.kind() {
            "identifier" | "list_splat_pattern" => Some(parameter),
            "default_parameter" | "typed_default_parameter" => {
                parameter.child_by_field_name("name")
            }
            "typed_parameter" => parameter.named_child(0),
            "keyword_separator" => {
                by_keyword_only = true;
                None
            }
            _ => None,
        };
        let Some(name) = name else { continue };
        match name.kind() {
            "list_splat_pattern" => {
                function.varargs = true;
                by_keyword_only = true;
            }
            "identifier" => {
                function
                    .parameters
                    .push((text(name, source).to_owned(), annotation));
                function.positional += usize::from(!by_keyword_only);
            }
            _ => {}
        }
    }
    function
}

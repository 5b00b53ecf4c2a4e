//! Python expressions, as far as types are told by them.

use tree_sitter::Node;

/// Levels of an expression, at most.
const DEPTH: usize = 12;
/// Parts of an expression, at most.
const PARTS: usize = 16;

/// An annotation, a base class, or the right side of an assignment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Expression {
    /// `a` or `a.b.c`.
    Name(String),
    /// `a[b, c]`.
    Subscript(Box<Expression>, Vec<Expression>),
    /// `a | b`.
    Union(Vec<Expression>),
    /// `a(...)`.
    Call(Box<Expression>),
    /// `"a.b"`: text that may be an annotation.
    Text(String),
    /// `None`.
    None,
    /// Anything else.
    Other,
}

impl Expression {
    /// Takes it from a node.
    pub(super) fn of(node: Node<'_>, source: &str) -> Self {
        of(node, source, 0)
    }

    /// The dotted name that it is, calls or subscripts.
    pub(super) fn name(&self) -> Option<&str> {
        match self {
            Self::Name(name) => Some(name),
            Self::Subscript(inner, _) | Self::Call(inner) => inner.name(),
            _ => None,
        }
    }
}

fn of(node: Node<'_>, source: &str, depth: usize) -> Expression {
    if depth > DEPTH {
        return Expression::Other;
    }
    let inner = |node: Node<'_>| of(node, source, depth + 1);
    let parts = |node: Node<'_>| -> Vec<Expression> {
        let mut cursor = node.walk();
        node.named_children(&mut cursor)
            .take(PARTS)
            .map(inner)
            .collect()
    };
    match node.kind() {
        "type" | "parenthesized_expression" => node.named_child(0).map_or(Expression::Other, inner),
        "identifier" | "attribute" => {
            dotted(node, source).map_or(Expression::Other, Expression::Name)
        }
        "none" => Expression::None,
        "string" => Expression::Text(string(node, source)),
        "call" => match node.child_by_field_name("function").map(inner) {
            Some(function @ Expression::Name(_)) => Expression::Call(Box::new(function)),
            _ => Expression::Other,
        },
        "subscript" => {
            let value = node.child_by_field_name("value").map(inner);
            let mut cursor = node.walk();
            let arguments = node.children_by_field_name("subscript", &mut cursor);
            let arguments = arguments.take(PARTS).map(inner).collect();
            match value {
                Some(value @ Expression::Name(_)) => {
                    Expression::Subscript(Box::new(value), arguments)
                }
                _ => Expression::Other,
            }
        }
        // In an annotation, `list[int]` is a generic type.
        "generic_type" => {
            let mut parts = parts(node);
            let arguments = match parts.pop() {
                Some(Expression::Union(arguments)) => arguments,
                _ => Vec::new(),
            };
            match parts.pop() {
                Some(value @ Expression::Name(_)) => {
                    Expression::Subscript(Box::new(value), arguments)
                }
                _ => Expression::Other,
            }
        }
        "type_parameter" | "union_type" => Expression::Union(parts(node)),
        "binary_operator" => {
            let or = node
                .child_by_field_name("operator")
                .is_some_and(|operator| operator.kind() == "|");
            if or {
                Expression::Union(parts(node))
            } else {
                Expression::Other
            }
        }
        _ => Expression::Other,
    }
}

/// `a.b.c` of identifiers and attributes of them.
pub(super) fn dotted(node: Node<'_>, source: &str) -> Option<String> {
    let mut names = Vec::new();
    let mut node = node;
    for _ in 0..DEPTH {
        match node.kind() {
            "identifier" | "dotted_name" => {
                names.push(text(node, source));
                names.reverse();
                return Some(names.join("."));
            }
            "attribute" => {
                names.push(text(node.child_by_field_name("attribute")?, source));
                node = node.child_by_field_name("object")?;
            }
            _ => return None,
        }
    }
    None
}

/// A string's content.
pub(super) fn string(node: Node<'_>, source: &str) -> String {
    let mut cursor = node.walk();
    node.named_children(&mut cursor)
        .find(|child| child.kind() == "string_content")
        .map(|content| text(content, source).to_owned())
        .unwrap_or_default()
}

/// A node's text.
pub(super) fn text<'s>(node: Node<'_>, source: &'s str) -> &'s str {
    source.get(node.byte_range()).unwrap_or_default()
}

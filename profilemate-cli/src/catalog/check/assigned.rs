//! The attributes that a class's methods assign to their instance.

use tree_sitter::Node;

use super::expression::{Expression, text};
use super::model::{Assigned, Class};

/// Attributes that a method assigns to its instance, `own`.
pub(super) fn assigned(class: &mut Class, body: Node<'_>, own: &str, method: &str, source: &str) {
    let mut open = vec![body];
    while let Some(node) = open.pop() {
        let mut cursor = node.walk();
        open.extend(node.named_children(&mut cursor));
        match node.kind() {
            "assignment" | "augmented_assignment" | "for_statement" => {
                let Some(left) = node.child_by_field_name("left") else {
                    continue;
                };
                let of = |field| {
                    node.child_by_field_name(field)
                        .map(|node| Expression::of(node, source))
                };
                let whole = left.kind() == "attribute" && node.kind() == "assignment";
                let (annotation, value) = if whole {
                    (of("type"), of("right").unwrap_or(Expression::Other))
                } else {
                    (None, Expression::Other)
                };
                for name in targets(left, own, source) {
                    class.instance.entry(name).or_default().push(Assigned {
                        annotation: annotation.clone(),
                        value: value.clone(),
                        method: method.to_owned(),
                    });
                }
            }
            "as_pattern_target" => {
                for name in targets(node, own, source) {
                    class.instance.entry(name).or_default().push(Assigned {
                        annotation: None,
                        value: Expression::Other,
                        method: method.to_owned(),
                    });
                }
            }
            "call" => {
                let name = node.child_by_field_name("function");
                let first = node
                    .child_by_field_name("arguments")
                    .and_then(|arguments| arguments.named_child(0));
                class.vague |= name.is_some_and(|name| text(name, source) == "setattr")
                    && first.is_some_and(|first| text(first, source) == own);
            }
            _ => {}
        }
    }
}

/// The attributes of `own` among the targets of an assignment.
fn targets(left: Node<'_>, own: &str, source: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![left];
    while let Some(node) = open.pop() {
        if node.kind() == "attribute" {
            let of = |field| {
                node.child_by_field_name(field)
                    .map_or("", |node| text(node, source))
            };
            if of("object") == own {
                found.push(of("attribute").to_owned());
            }
        } else if node.kind() != "subscript" && node.kind() != "call" {
            let mut cursor = node.walk();
            open.extend(node.named_children(&mut cursor));
        }
    }
    found
}

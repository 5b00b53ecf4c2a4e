//! What is shed when tracing costs more than it may, and in which order: data.
//!
//! First goes what costs most for what it tells; last what everything else hangs on.

/// Which methods a rung holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    /// Methods with one of these catalogue ids; an id that ends in `.` stands for all that begin with it.
    Ids(&'static [&'static str]),
    /// Methods that feed this table and no other.
    OnlyFeeding(&'static str),
}

/// Methods that are shed together.
#[derive(Clone, Copy, Debug)]
pub struct Rung {
    /// Name.
    pub name: &'static str,
    /// What is lost, in plain words.
    pub doc: &'static str,
    /// The methods.
    pub holds: Holds,
}

/// The rungs, in the order in which they are shed.
pub const LADDER: &[Rung] = &[
    Rung {
        name: "expert choices",
        doc: "which experts were chosen; each event carries the choices themselves",
        holds: Holds::Ids(&["moe.route"]),
    },
    Rung {
        name: "layers",
        doc: "calls of single layers: many in each step",
        holds: Holds::Ids(&["moe.", "encoder.cross_attention"]),
    },
    Rung {
        name: "host operations",
        doc: "rows of cpu_operations_timing, where a page has no log that tells them without a trap",
        holds: Holds::OnlyFeeding("cpu_operations_timing"),
    },
    Rung {
        name: "cache blocks",
        doc: "evictions and ages of KV cache blocks",
        holds: Holds::Ids(&["block_pool."]),
    },
    Rung {
        name: "encoders and drafts",
        doc: "encoders of multimodal models, drafts of speculative decoding",
        holds: Holds::Ids(&["encoder.", "scheduler.make_stats"]),
    },
    Rung {
        name: "graph decisions",
        doc: "which CUDA graph a batch was given; launches are still told",
        holds: Holds::Ids(&["graph."]),
    },
    Rung {
        name: "forward passes",
        doc: "rows of forward_pass_timing",
        holds: Holds::Ids(&["runner.execute_model", "runner.model_forward"]),
    },
    Rung {
        name: "own methods",
        doc: "methods given with --method",
        holds: Holds::Ids(&["user."]),
    },
    Rung {
        name: "schedule",
        doc: "the scheduler's calls, and with them steps and requests",
        holds: Holds::Ids(&["scheduler."]),
    },
];

impl Rung {
    /// Whether a method with this id, which feeds `tables`, is on the rung.
    fn holds(&self, id: &str, tables: &[String]) -> bool {
        match self.holds {
            Holds::Ids(ids) => ids
                .iter()
                .any(|own| *own == id || own.ends_with('.') && id.starts_with(own)),
            Holds::OnlyFeeding(table) => matches!(tables, [only] if only == table),
        }
    }
}

/// The rung that a method is on: the first that holds it. `None`: it is never shed.
pub fn rung_of(id: &str, tables: &[String]) -> Option<usize> {
    LADDER.iter().position(|rung| rung.holds(id, tables))
}

/// The ladder as lines of a plan.
pub fn text() -> String {
    let line =
        |(number, rung): (usize, &Rung)| format!("  {}. {}: {}", number + 1, rung.name, rung.doc);
    let lines: Vec<String> = LADDER.iter().enumerate().map(line).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Catalog;

    #[test]
    fn the_order_is_in_the_manual() {
        let names: Vec<&str> = LADDER.iter().map(|rung| rung.name).collect();
        let manual = include_str!("../../../docs/overhead.md").replace('\n', " ");
        assert!(manual.contains(&names.join(", ")));
    }

    #[test]
    fn every_method_whose_calls_are_events_is_on_a_rung_and_no_rung_is_empty() {
        let methods = Catalog::vllm().methods;
        let mut used = [false; LADDER.len()];
        for method in &methods {
            let rung = rung_of(&method.id, &method.tables);
            if method.events == crate::catalog::Events::Count {
                continue;
            }
            assert!(rung.is_some(), "{}", method.id);
            used[rung.unwrap()] = true;
        }
        used[rung_of("user.0", &["methods".to_owned()]).unwrap()] = true;
        assert_eq!(used, [true; LADDER.len()]);
    }

    #[test]
    fn the_schedule_goes_last_and_a_method_is_on_its_first_rung() {
        let of = |id: &str, tables: &[&str]| {
            let tables: Vec<String> = tables.iter().map(|&table| table.to_owned()).collect();
            LADDER[rung_of(id, &tables).unwrap()].name
        };
        assert_eq!(of("scheduler.schedule", &["batch_utilization"]), "schedule");
        assert_eq!(LADDER.last().unwrap().name, "schedule");
        assert_eq!(of("moe.route", &[]), "expert choices");
        assert_eq!(of("moe.forward", &[]), "layers");
        assert_eq!(
            of("scheduler.update_from_output", &["cpu_operations_timing"]),
            "host operations"
        );
        assert_eq!(
            of("engine.step", &["cpu_operations_timing"]),
            "host operations"
        );
    }
}

//! KV cache blocks: when each was handed out and last used.

use std::collections::HashMap;

/// Blocks remembered, at most; beyond, all are forgotten.
const CAPACITY: usize = 1 << 22;

#[derive(Clone, Copy, Debug)]
struct Block {
    /// `None`: before the attach.
    born_ns: Option<u64>,
    used_ns: u64,
}

/// Since when a block lived and lay idle, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Age {
    /// Since it was handed out.
    pub lifetime_ns: Option<u64>,
    /// Since it was handed out or hit by the prefix cache.
    pub idle_ns: Option<u64>,
}

/// The blocks of one engine.
#[derive(Debug, Default)]
pub struct Blocks {
    known: HashMap<i64, Block>,
    /// Blocks that are not known were hit: what was used before may have been among them.
    blurred_ns: Option<u64>,
}

impl Blocks {
    /// Blocks were handed out.
    pub fn allocate(&mut self, ids: &[i64], at_ns: u64) {
        self.bound();
        for &id in ids {
            self.known.insert(
                id,
                Block {
                    born_ns: Some(at_ns),
                    used_ns: at_ns,
                },
            );
        }
    }

    /// Blocks were hit by the prefix cache.
    pub fn touch(&mut self, ids: &[i64], at_ns: u64) {
        self.bound();
        for &id in ids {
            self.known
                .entry(id)
                .or_insert(Block {
                    born_ns: None,
                    used_ns: at_ns,
                })
                .used_ns = at_ns;
        }
    }

    /// Blocks were hit by the prefix cache, but not all of them are known.
    pub fn blur(&mut self, at_ns: u64) {
        self.blurred_ns = self.blurred_ns.max(Some(at_ns));
    }

    /// A block lost its content. The call that hands it out again ends later.
    pub fn evict(&mut self, id: i64, at_ns: u64) -> Age {
        let Some(block) = self.known.remove(&id) else {
            return Age::default();
        };
        Age {
            lifetime_ns: block.born_ns.and_then(|born| at_ns.checked_sub(born)),
            idle_ns: at_ns.checked_sub(block.used_ns).filter(|_| {
                self.blurred_ns
                    .is_none_or(|blurred| blurred <= block.used_ns)
            }),
        }
    }

    /// Something happened to blocks that are not known: no age is certain any more.
    pub fn forget(&mut self) {
        self.known.clear();
    }

    fn bound(&mut self) {
        if self.known.len() >= CAPACITY {
            self.forget();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_vllms_own() {
        let mut blocks = Blocks::default();
        blocks.allocate(&[1, 2], 100);
        blocks.touch(&[1], 150);
        assert_eq!(
            blocks.evict(1, 400),
            Age {
                lifetime_ns: Some(300),
                idle_ns: Some(250)
            }
        );
        assert_eq!(
            blocks.evict(2, 400),
            Age {
                lifetime_ns: Some(300),
                idle_ns: Some(300)
            }
        );
    }

    #[test]
    fn a_block_from_before_the_attach_has_no_lifetime() {
        let mut blocks = Blocks::default();
        assert_eq!(blocks.evict(1, 400), Age::default());
        blocks.touch(&[2], 150);
        assert_eq!(
            blocks.evict(2, 400),
            Age {
                lifetime_ns: None,
                idle_ns: Some(250)
            }
        );
    }

    #[test]
    fn an_evicted_block_begins_anew() {
        let mut blocks = Blocks::default();
        blocks.allocate(&[1], 100);
        blocks.evict(1, 200);
        blocks.allocate(&[1], 210);
        assert_eq!(
            blocks.evict(1, 300),
            Age {
                lifetime_ns: Some(90),
                idle_ns: Some(90)
            }
        );
    }

    #[test]
    fn after_an_unknown_hit_only_the_idle_time_is_uncertain() {
        let mut blocks = Blocks::default();
        blocks.allocate(&[1, 2], 100);
        blocks.blur(150);
        blocks.touch(&[2], 200);
        assert_eq!(
            blocks.evict(1, 400),
            Age {
                lifetime_ns: Some(300),
                idle_ns: None
            }
        );
        assert_eq!(
            blocks.evict(2, 400),
            Age {
                lifetime_ns: Some(300),
                idle_ns: Some(200)
            }
        );
    }

    #[test]
    fn after_an_unknown_change_no_age_is_told() {
        let mut blocks = Blocks::default();
        blocks.allocate(&[1], 100);
        blocks.forget();
        assert_eq!(blocks.evict(1, 300), Age::default());
    }
}

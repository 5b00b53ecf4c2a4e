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

/// Block pools of one engine, at most; what comes beyond stands for one pool.
const POOLS: usize = 64;

/// The block pools of one engine, by the pool object's identity. Blocks of different pools have the same numbers.
#[derive(Debug, Default)]
pub struct Pools(Vec<(Option<u64>, Blocks)>);

impl Pools {
    /// The number of a pool, in the order of appearance, and its blocks.
    pub fn get(&mut self, pool: Option<u64>) -> (u32, &mut Blocks) {
        let index = match self.0.iter().position(|known| known.0 == pool) {
            Some(index) => index,
            None if self.0.len() < POOLS => {
                self.0.push((pool, Blocks::default()));
                self.0.len() - 1
            }
            None => {
                // Nobody knows whose blocks these are.
                self.0[POOLS - 1].1.forget();
                POOLS - 1
            }
        };
        (index as u32, &mut self.0[index].1)
    }

    /// The pools, in the order of appearance.
    pub fn identities(&self) -> Vec<Option<u64>> {
        self.0.iter().map(|pool| pool.0).collect()
    }

    /// No age is certain any more.
    pub fn forget(&mut self) {
        self.0.iter_mut().for_each(|pool| pool.1.forget());
    }
}

/// The blocks of one pool.
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
    fn pools_do_not_mix() {
        let mut pools = Pools::default();
        pools.get(Some(0x10)).1.allocate(&[1], 100);
        pools.get(Some(0x20)).1.allocate(&[1], 200);
        let (first, blocks) = pools.get(Some(0x10));
        assert_eq!((first, blocks.evict(1, 300).lifetime_ns), (0, Some(200)));
        let (second, blocks) = pools.get(Some(0x20));
        assert_eq!((second, blocks.evict(1, 300).lifetime_ns), (1, Some(100)));
        for pool in 0..200 {
            assert!(pools.get(Some(pool)).0 < POOLS as u32);
        }
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

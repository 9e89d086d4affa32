//! Orders of blocks and threads.

/// The order in which blocks run, and threads between barriers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// From the first to the last.
    Forward,
    /// From the last to the first.
    Reversed,
    /// In another order at each turn, with threads broken off after a few instructions; the same for the same seed.
    Seeded(u64),
}

/// Orders and lengths of turns.
pub(crate) struct Chooser {
    order: Order,
    state: u64,
}

impl Chooser {
    pub(crate) fn new(order: Order) -> Self {
        let state = if let Order::Seeded(seed) = order { seed } else { 0 };
        Self { order, state }
    }

    /// SplitMix64 (Steele et al., 2014).
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ self.state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// Numbers below `count`, each once.
    pub(crate) fn order(&mut self, count: u32) -> Vec<u32> {
        let mut numbers: Vec<u32> = (0..count).collect();
        match self.order {
            Order::Forward => {}
            Order::Reversed => numbers.reverse(),
            Order::Seeded(_) => {
                for last in (1..numbers.len()).rev() {
                    numbers.swap(last, (self.next() % (last as u64 + 1)) as usize);
                }
            }
        }
        numbers
    }

    /// Instructions that a thread may run before others come.
    pub(crate) fn quantum(&mut self) -> u64 {
        match self.order {
            Order::Forward | Order::Reversed => u64::MAX,
            Order::Seeded(_) => 1 + self.next() % 200,
        }
    }
}

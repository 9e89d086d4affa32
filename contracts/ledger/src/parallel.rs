//! A full block's work on all processors.

use std::panic::resume_unwind;
use std::thread::available_parallelism;

/// The most threads that one block uses.
const MAX_THREADS: usize = 8;

/// Gives each thread a part of the items, `fewest` at least; the results are in the items' order.
pub(crate) fn in_parallel<T: Sync, R: Send>(
    items: &[T],
    fewest: usize,
    work: impl Fn(&[T]) -> Vec<R> + Sync,
) -> Vec<R> {
    let processors = available_parallelism().map_or(1, |number| number.get().min(MAX_THREADS));
    let threads = processors.min(items.len() / fewest);
    if threads < 2 {
        return work(items);
    }
    std::thread::scope(|scope| {
        let mut parts = items.chunks(items.len().div_ceil(threads));
        let own = parts.next().unwrap_or_default();
        let others: Vec<_> = parts.map(|part| scope.spawn(|| work(part))).collect();
        let mut results = work(own);
        for part in others {
            results.extend(part.join().unwrap_or_else(|panic| resume_unwind(panic)));
        }
        results
    })
}

#[cfg(test)]
mod tests {
    use super::in_parallel;

    #[test]
    fn results_are_in_the_order_of_the_items_for_every_division() {
        for length in [0, 1, 2, 7, 64, 1001] {
            let items: Vec<usize> = (0..length).collect();
            for fewest in [1, 3, 500, 2000] {
                let doubled = in_parallel(&items, fewest, |part| part.iter().map(|item| item * 2).collect());
                assert_eq!(
                    doubled,
                    (0..length).map(|item| item * 2).collect::<Vec<_>>(),
                    "{length} by {fewest}"
                );
            }
        }
    }
}

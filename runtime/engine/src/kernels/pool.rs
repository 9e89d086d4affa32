//! A few threads that share short loops. They spin for some microseconds between loops and then sleep; a thread
//! that sleeps, or that the machine took away, is not waited for: its share is done by the others.

use std::{
    any::Any,
    cell::UnsafeCell,
    marker::PhantomData,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
};

use super::InstructionSet;

/// Most threads of a pool.
const MAX_THREADS: usize = 256;
/// Looks at the gate before a thread sleeps: some tens of microseconds.
const SPINS: u32 = 1500;
/// Looks at the gate before the caller, who waits for a last piece of work, gives its time to others.
const PATIENCE: u32 = 2000;

/// The gate says whether a loop is open to join, which one it is, and how many workers are inside.
const OPEN: u64 = 1 << 16;
const INSIDE: u64 = OPEN - 1;
const STEP: u64 = OPEN << 1;
/// Gate of a pool that ends.
const END: u64 = u64::MAX;

/// Does the pieces of these numbers.
type Body<'a> = dyn Fn(Range<usize>) + Sync + 'a;

struct Shared {
    gate: AtomicU64,
    /// The loop's body. Written while the gate is closed and nobody is inside; read only by those inside.
    body: UnsafeCell<Option<&'static Body<'static>>>,
    count: AtomicUsize,
    /// A thread takes this part of what is left, one piece at least.
    part: AtomicUsize,
    next: AtomicUsize,
    sleeping: Vec<AtomicBool>,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

#[expect(unsafe_code, reason = "`body` is guarded by the gate")]
// SAFETY: `body` is written only by the one caller that holds `Pool::caller`, while the gate is closed and no worker
// is inside; workers read it only while they are counted inside. The gate orders both.
unsafe impl Sync for Shared {}

/// Threads for one engine. The thread that calls is one of them.
pub(crate) struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// Held for the length of a loop: one loop at a time.
    caller: Mutex<()>,
    set: InstructionSet,
}

impl Pool {
    /// A pool of `threads`, less the one that calls. Where the machine gives no more threads, it has fewer.
    pub(crate) fn new(threads: usize, set: InstructionSet) -> Self {
        let extra = threads.clamp(1, MAX_THREADS) - 1;
        let shared = Arc::new(Shared {
            gate: AtomicU64::new(0),
            body: UnsafeCell::new(None),
            count: AtomicUsize::new(0),
            part: AtomicUsize::new(usize::MAX),
            next: AtomicUsize::new(0),
            sleeping: (0..extra).map(|_| AtomicBool::new(false)).collect(),
            panic: Mutex::new(None),
        });
        let start = |index: usize| {
            let shared = Arc::clone(&shared);
            let name = format!("engine-{}", index + 1);
            std::thread::Builder::new().name(name).spawn(move || work(&shared, index)).ok()
        };
        let workers = (0..extra).map_while(start).collect();
        Self { shared, workers, caller: Mutex::new(()), set }
    }

    pub(crate) fn instruction_set(&self) -> InstructionSet {
        self.set
    }

    /// Threads, the caller's among them.
    pub(crate) fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `body` with each number below `count`, on any thread, in any order, and returns when all are done.
    pub(crate) fn run(&self, count: usize, body: &(dyn Fn(usize) + Sync)) {
        self.divide(count, usize::MAX, &|range| range.for_each(body));
    }

    /// Calls `body` with ranges that are all of `0..count`, on any thread, in any order: a `part` of what is left, or one.
    fn divide(&self, count: usize, part: usize, body: &Body<'_>) {
        if count == 0 {
            return;
        }
        if self.workers.is_empty() || count == 1 {
            body(0..count);
            return;
        }
        let _one_at_a_time = self.caller.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let open = self.open(count, part, body);
        let own = catch_unwind(AssertUnwindSafe(|| self.shared.take_part(body)));
        drop(open); // closes the gate and waits for those inside
        let theirs = self.shared.panic.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
        if let Some(panic) = own.err().or(theirs) {
            resume_unwind(panic);
        }
    }

    fn open<'p>(&'p self, count: usize, part: usize, body: &Body<'_>) -> Open<'p> {
        let shared = &*self.shared;
        shared.count.store(count, Ordering::Relaxed);
        shared.part.store(part, Ordering::Relaxed);
        shared.next.store(0, Ordering::Relaxed);
        #[expect(unsafe_code, reason = "a loop's body is lent to other threads for the length of the loop")]
        // SAFETY: the caller holds `caller`, the gate is closed and nobody is inside, so nothing reads `body` now.
        // The longer lifetime is never used: `Open` closes the gate and waits until nobody is inside before `run`,
        // which borrows the body, returns or unwinds.
        unsafe {
            *shared.body.get() = Some(std::mem::transmute::<&Body<'_>, &'static Body<'static>>(body));
        }
        let gate = shared.gate.load(Ordering::Relaxed);
        shared.gate.store((gate & !(OPEN | INSIDE)).wrapping_add(STEP) | OPEN, Ordering::SeqCst);
        for (sleeping, worker) in shared.sleeping.iter().zip(&self.workers) {
            if sleeping.load(Ordering::SeqCst) && sleeping.swap(false, Ordering::SeqCst) {
                worker.thread().unpark();
            }
        }
        Open(shared)
    }

    /// Calls `body` with each chunk of `out` and its number.
    pub(crate) fn each_chunk<T: Send>(
        &self,
        out: &mut [T],
        chunk: usize,
        body: impl Fn(usize, &mut [T]) + Sync,
    ) {
        let chunks = Chunks::new(out, chunk);
        self.run(chunks.count(), &|index| chunks.with(index..index + 1, &body));
    }

    /// Calls `body` with runs of neighbouring chunks of `out` and the number of the first. Runs are long while much is
    /// left, for whoever reads memory in order, and one chunk at the end, so that threads end together.
    pub(crate) fn each_run<T: Send>(
        &self,
        out: &mut [T],
        chunk: usize,
        body: impl Fn(usize, &mut [T]) + Sync,
    ) {
        let chunks = Chunks::new(out, chunk);
        self.divide(chunks.count(), self.threads(), &|range| chunks.with(range, &body));
    }
}

/// A slice in chunks, lent to threads that each take others.
struct Chunks<'a, T> {
    start: *mut T,
    length: usize,
    chunk: usize,
    slice: PhantomData<&'a mut [T]>,
}

#[expect(unsafe_code, reason = "disjoint chunks of one slice")]
// SAFETY: a loop hands each number out once, so each chunk is seen by one thread; T is Send.
unsafe impl<T: Send> Sync for Chunks<'_, T> {}

impl<'a, T> Chunks<'a, T> {
    fn new(out: &'a mut [T], chunk: usize) -> Self {
        Self { start: out.as_mut_ptr(), length: out.len(), chunk: chunk.max(1), slice: PhantomData }
    }

    fn count(&self) -> usize {
        self.length.div_ceil(self.chunk)
    }

    /// Calls `body` with these chunks, which are below the count and which nobody else has.
    fn with(&self, chunks: Range<usize>, body: impl Fn(usize, &mut [T])) {
        let range = chunks.start * self.chunk..(chunks.end * self.chunk).min(self.length);
        #[expect(unsafe_code, reason = "disjoint chunks of one slice")]
        // SAFETY: the range lies inside the slice, which is borrowed for as long as `self`, and chunks of different
        // numbers do not overlap.
        let piece =
            unsafe { std::slice::from_raw_parts_mut(self.start.wrapping_add(range.start), range.len()) };
        body(chunks.start, piece);
    }
}

/// An open gate. Dropping it closes the gate and waits for the workers inside.
struct Open<'p>(&'p Shared);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.gate.fetch_and(!OPEN, Ordering::SeqCst);
        let mut looks = 0u32;
        while self.0.gate.load(Ordering::Acquire) & INSIDE != 0 {
            looks += 1;
            if looks < PATIENCE { std::hint::spin_loop() } else { std::thread::yield_now() }
        }
    }
}

impl Shared {
    /// Takes numbers until none is left.
    fn take_part(&self, body: &Body<'_>) {
        let (count, part) = (self.count.load(Ordering::Relaxed), self.part.load(Ordering::Relaxed));
        let take = |next: usize| (next < count).then(|| next + ((count - next) / part).max(1));
        while let Ok(start) = self.next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) {
            body(start..take(start).expect("it was below the count"));
        }
    }

    /// Goes inside the loop that `gate` announced, unless it is over already.
    fn join(&self, gate: u64) {
        let mut seen = gate;
        while seen & OPEN != 0 && seen / STEP == gate / STEP {
            match self.gate.compare_exchange_weak(seen, seen + 1, Ordering::SeqCst, Ordering::Relaxed) {
                Ok(_) => {
                    #[expect(unsafe_code, reason = "`body` is guarded by the gate")]
                    // SAFETY: this worker is counted inside, so the caller waits with everything that `body` borrows,
                    // and writes nothing there.
                    let body = unsafe { (*self.body.get()).expect("set before the gate opened") };
                    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.take_part(body))) {
                        *self.panic.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(panic);
                    }
                    self.gate.fetch_sub(1, Ordering::SeqCst);
                    return;
                }
                Err(now) => seen = now,
            }
        }
    }
}

/// A worker's life.
fn work(shared: &Shared, index: usize) {
    let mut done = 0; // number of the last loop seen
    let mut spins = 0;
    loop {
        let gate = shared.gate.load(Ordering::SeqCst);
        if gate == END {
            return;
        }
        if gate & OPEN != 0 && gate / STEP != done {
            done = gate / STEP;
            shared.join(gate);
            spins = 0;
        } else if spins < SPINS {
            spins += 1;
            std::hint::spin_loop();
        } else {
            // Says first that it sleeps and then looks again, so that no loop is opened unseen in between.
            shared.sleeping[index].store(true, Ordering::SeqCst);
            if shared.gate.load(Ordering::SeqCst) == gate {
                std::thread::park();
            }
            shared.sleeping[index].store(false, Ordering::SeqCst);
            spins = 0;
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.gate.store(END, Ordering::SeqCst);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            // A worker catches what a loop's body throws, so it ends well.
            let _ = worker.join();
        }
    }
}

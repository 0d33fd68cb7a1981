//! Keeps the guests' time: a thread that moves wasmtime's epoch on while a call is in flight, and sleeps without a timer
//! when none has been for a while. It lives as long as a guest does.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

/// How exact a deadline is.
pub(super) const TICK: Duration = Duration::from_millis(10);

/// Ticks without a call after which the thread sleeps. Waking it costs a call some microseconds, so not at once.
const LINGER: u32 = 10;

struct Shared {
    in_flight: AtomicU32,
    parked: AtomicBool,
    stop: AtomicBool,
}

pub(super) struct Ticker {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// Time runs while this lives.
pub(super) struct InFlight<'a>(&'a Shared);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, SeqCst);
    }
}

impl Ticker {
    pub(super) fn start(tick: impl Fn() + Send + 'static) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            in_flight: AtomicU32::new(0),
            parked: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        });
        let mine = Arc::clone(&shared);
        let thread = thread::Builder::new().name("ig-epoch".into()).spawn(move || run(&mine, tick))?;
        Ok(Ticker { shared, thread: Some(thread) })
    }

    pub(super) fn enter(&self) -> InFlight<'_> {
        // Both sides first say what they do and then look at the other, in one total order: one of them sees.
        self.shared.in_flight.fetch_add(1, SeqCst);
        if self.shared.parked.load(SeqCst) {
            self.wake();
        }
        InFlight(&self.shared)
    }

    fn wake(&self) {
        if let Some(t) = &self.thread {
            t.thread().unpark();
        }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.stop.store(true, SeqCst);
        self.wake();
        if let Some(t) = self.thread.take()
            && t.join().is_err()
        {
            debug_assert!(false, "the ticker panicked");
        }
    }
}

fn run(shared: &Shared, tick: impl Fn()) {
    let mut quiet = 0;
    while !shared.stop.load(SeqCst) {
        if shared.in_flight.load(SeqCst) > 0 {
            quiet = 0;
        } else if quiet == LINGER {
            shared.parked.store(true, SeqCst);
            while shared.in_flight.load(SeqCst) == 0 && !shared.stop.load(SeqCst) {
                thread::park();
            }
            shared.parked.store(false, SeqCst);
            quiet = 0;
        } else {
            quiet += 1;
        }
        thread::park_timeout(TICK);
        tick();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn it_ticks_during_a_call_and_stands_still_without() {
        let ticks = Arc::new(AtomicU32::new(0));
        let copy = Arc::clone(&ticks);
        let ticker = Ticker::start(move || {
            copy.fetch_add(1, SeqCst);
        })
        .unwrap();
        let until_parked = || {
            let t = Instant::now();
            while !ticker.shared.parked.load(SeqCst) {
                assert!(t.elapsed() < Duration::from_secs(120), "never parked");
                thread::sleep(TICK);
            }
        };
        until_parked();
        let before = ticks.load(SeqCst);
        thread::sleep(5 * TICK);
        assert_eq!(ticks.load(SeqCst), before);
        {
            let _call = ticker.enter();
            let t = Instant::now();
            while ticks.load(SeqCst) < before + 15 {
                assert!(t.elapsed() < Duration::from_secs(120), "no ticks in a call");
                thread::sleep(TICK);
            }
        }
        until_parked();
    }
}

//! What is worked on beside one another on the threads of a scope, and comes out in the order in which it
//! went in.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, sync_channel};

use rayon::Scope;

use super::CaptureError;

/// Things under way.
pub(super) struct Line<'a, 'scope, T> {
    scope: &'a Scope<'scope>,
    under_way: VecDeque<Receiver<Result<T, CaptureError>>>,
}

impl<'a, 'scope, T: Send + 'scope> Line<'a, 'scope, T> {
    /// An empty line.
    pub fn new(scope: &'a Scope<'scope>) -> Self {
        Self { scope, under_way: VecDeque::new() }
    }

    /// How many have not come out yet.
    pub fn len(&self) -> usize {
        self.under_way.len()
    }

    /// Has something worked on.
    pub fn put(
        &mut self,
        mut thing: T,
        work: impl FnOnce(&mut T) -> Result<(), CaptureError> + Send + 'scope,
    ) {
        let (sender, done) = sync_channel(1);
        self.under_way.push_back(done);
        self.scope.spawn(move |_| {
            let worked = work(&mut thing).map(|()| thing);
            // Whoever waited may have given up.
            sender.send(worked).ok();
        });
    }

    /// Puts something in its place on which there is nothing to be done.
    pub fn pass(&mut self, thing: T) {
        let (sender, done) = sync_channel(1);
        self.under_way.push_back(done);
        // There is room for one.
        sender.send(Ok(thing)).ok();
    }

    /// The next one, when the work on it is done; `None` after the last.
    ///
    /// # Errors
    /// Those of the work; where that panics, the scope does then.
    pub fn take(&mut self) -> Result<Option<T>, CaptureError> {
        let Some(first) = self.under_way.pop_front() else { return Ok(None) };
        first.recv().map_err(|_died| CaptureError::Abandoned)?.map(Some)
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::Barrier;

    use rayon::ThreadPoolBuilder;

    use super::*;

    #[test]
    fn what_is_done_later_comes_out_in_its_place() {
        let pool = ThreadPoolBuilder::new().num_threads(2).build().unwrap();
        let second_is_done = Barrier::new(2);
        let out = pool.in_place_scope(|scope| {
            let mut line = Line::new(scope);
            line.put(1, |_| {
                second_is_done.wait();
                Ok(())
            });
            line.put(2, |number| {
                *number += 10;
                second_is_done.wait();
                Ok(())
            });
            line.pass(3);
            line.put(4, |_| Err(CaptureError::Missing(4)));
            assert_eq!(line.len(), 4);
            let out: Vec<_> = (0..3).map(|_| line.take().unwrap()).collect();
            assert!(matches!(line.take(), Err(CaptureError::Missing(4))));
            assert!(matches!(line.take(), Ok(None)));
            out
        });
        assert_eq!(out, [Some(1), Some(12), Some(3)]);
    }

    #[test]
    fn nobody_waits_for_what_died() {
        let pool = ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let died = catch_unwind(AssertUnwindSafe(|| {
            pool.in_place_scope(|scope| {
                let mut line = Line::new(scope);
                line.put((), |()| panic!("on purpose"));
                assert!(matches!(line.take(), Err(CaptureError::Abandoned)));
            });
        }));
        assert!(died.is_err());
    }
}

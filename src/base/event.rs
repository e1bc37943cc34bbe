//! How a job tells its story.

/// Receives the events of a job, in order, from any thread. It must return quickly and may not fail.
pub trait Sink<E>: Send + Sync {
    /// Takes one event.
    fn emit(&self, event: E);
}

impl<E, F: Fn(E) + Send + Sync> Sink<E> for F {
    fn emit(&self, event: E) {
        self(event);
    }
}

/// A sink that drops everything.
#[derive(Debug, Clone, Copy, Default)]
pub struct Discard;

impl<E> Sink<E> for Discard {
    fn emit(&self, _event: E) {}
}

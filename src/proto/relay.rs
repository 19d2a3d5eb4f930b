//! One direction of a session: bytes from a source to a sink, with end-of-file, reset and back-pressure.
//!
//! The order inside one direction is *write, then shut down, then read*: what is held goes out before more is taken, so a
//! ring is full or empty, memory is bounded, and a slow sink pushes back on its source through the kernel's own buffers.
//!
//! A direction whose source has had plenty for a while is bulk: its bytes go through a pipe and are never copied to us. A pipe
//! costs a call more than a ring before it is known that nothing is left to read, so small messages never see one.

use super::failure::Failure;
use super::ring::{RING_BYTES, Ring, Standing};

/// A read of so much counts for bulk, a smaller one against it. An ordinary ring is full then.
pub const PLENTY_BYTES: usize = RING_BYTES;
/// A direction is bulk once so many more reads had plenty than had not.
const BULK_FROM: u8 = 4;
/// More than so many are not counted, so that a few small ones end it, however long it was.
const BULK_MOST: u8 = 8;

/// A sink that lets bytes wait for so many milliseconds is slow: it sleeps, its link is narrow, or it is very far away. Who stops for
/// less is only behind for a moment.
pub const SLOW_MS: u64 = 100;
/// It is until it has taken so many spans without such a wait: more than the kernel takes at once for a peer that reads little (as
/// `net.ipv4.tcp_wmem` has it, 4 MiB).
const SLOW_SPANS: u8 = 15;
const SPAN_BYTES: u64 = 512 * 1024;
/// Who has taken so much, and is not slow, will go on.
const PROVEN_BYTES: u64 = SLOW_SPANS as u64 * SPAN_BYTES;

/// How a direction goes, in one byte: what is in a session is in each of thousands. The lower half counts by how many more reads had
/// plenty than had not, the upper one the spans until the sink is no longer slow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Pace(u8);

impl Pace {
    fn bulk(self) -> u8 {
        self.0 & 0xf
    }

    fn slow_spans(self) -> u8 {
        self.0 >> 4
    }

    fn set_bulk(&mut self, bulk: u8) {
        self.0 = self.slow_spans() << 4 | bulk.min(BULK_MOST);
    }

    fn set_slow_spans(&mut self, spans: u8) {
        self.0 = spans.min(SLOW_SPANS) << 4 | self.bulk();
    }
}

const _: () = assert!(BULK_MOST <= 0xf && SLOW_SPANS <= 0xf);

/// What is believed about a socket: rumours from events, corrected by system calls. A set bit means "may succeed, try";
/// only a would-block from that very socket (or a short read, see [`Half::read`]) clears one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// A read may return bytes, end-of-file or an error.
    pub readable: bool,
    /// A write may take bytes or return an error; for a socket that is being dialed: the attempt is over.
    pub writable: bool,
    /// The peer has ended its direction. Sticky: data and FIN can share one edge (kernel fact
    /// `fin_with_data_shares_one_edge`), so a short read no longer proves that nothing is left to read.
    pub read_closed: bool,
    /// The peer has sent urgent data. Sticky: a read stops at the urgent mark whatever stands behind it (kernel fact
    /// `a_read_stops_at_urgent_data`), so a short read proves nothing any more here either.
    pub urgent: bool,
    /// An error is pending on the socket.
    pub error: bool,
}

impl Ready {
    /// A socket fresh from `accept`: everything is worth a try.
    #[must_use]
    pub fn fresh() -> Ready {
        Ready { readable: true, writable: true, ..Ready::default() }
    }

    /// Adds what an event says.
    pub fn add(&mut self, news: Ready) {
        self.readable |= news.readable;
        self.writable |= news.writable;
        self.read_closed |= news.read_closed;
        self.urgent |= news.urgent;
        self.error |= news.error;
    }
}

/// The reading end of a direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// More may come.
    #[default]
    Open,
    /// Ended in order, by a FIN.
    Ended,
    /// Ended by a reset.
    Reset,
}

/// The writing end of a direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sink {
    /// Takes bytes.
    #[default]
    Open,
    /// We have shut it down: the source's end was passed on.
    Shut,
    /// It takes no bytes any more. What it still has to say is read from its other direction.
    Broken,
}

/// What one direction wants done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    /// Fill the ring from the source.
    Read,
    /// Pass on what the source has, and take of it only what the sink took.
    Pass,
    /// Drain the ring into the sink.
    Write,
    /// Fill the pipe, which is empty, from the source.
    Fill,
    /// Drain the pipe into the sink.
    Drain,
    /// Pass the source's end on.
    ShutdownWrite,
    /// Nothing can be done now; readiness, storage or the other direction changes that.
    Nothing,
}

/// One direction. `up` is client → upstream, `down` is upstream → client.
#[derive(Debug, Default)]
pub struct Half {
    /// Bytes read and not yet written.
    pub ring: Ring,
    /// Bytes in the pipe, likewise. Never beside bytes in the ring: nothing is taken while anything is held.
    pub piped: u32,
    pace: Pace,
    /// Payload bytes that the sink took.
    pub moved: u64,
    /// The reading end.
    pub source: Source,
    /// The writing end.
    pub sink: Sink,
    /// How it stood with the free list when storage was last asked for.
    pub supply: Supply,
}

/// What there is of storage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Supply {
    /// Whoever asks has as much as it is good for.
    #[default]
    Plenty,
    /// Little is read at a time, so that little waits; of a tunnel nothing at all ([`Move::Pass`]).
    Scarce,
    /// The free list had nothing to lend; nothing is read until it has.
    Starved,
}

impl Half {
    /// What to do next, `from` being the source's readiness and `to` the sink's.
    #[must_use]
    pub fn next(&self, from: Ready, to: Ready) -> Move {
        match (self.sink, self.source) {
            (Sink::Open, _) if !self.is_empty() => match (to.writable, self.piped) {
                (true, 0) => Move::Write,
                (true, _) => Move::Drain,
                (false, _) => Move::Nothing,
            },
            (Sink::Open, Source::Ended) => Move::ShutdownWrite,
            // A pipe is never filled beyond urgent data (kernel fact `a_pipe_is_not_filled_beyond_urgent_data`).
            (Sink::Open, Source::Open) if from.readable && self.is_bulk() && !from.urgent => Move::Fill,
            (Sink::Open, Source::Open) if from.readable => match self.supply {
                Supply::Plenty => Move::Read,
                Supply::Scarce if to.writable => Move::Pass,
                Supply::Scarce | Supply::Starved => Move::Nothing,
            },
            // Not ready, or the session is about to end over the reset.
            (Sink::Open, Source::Open | Source::Reset) => Move::Nothing,
            // Bytes for a sink that takes none are not even read: the kernel pushes back for us.
            (Sink::Shut | Sink::Broken, Source::Open | Source::Ended | Source::Reset) => Move::Nothing,
        }
    }

    /// Whether it waits for storage.
    #[must_use]
    pub fn is_starved(&self) -> bool {
        self.supply == Supply::Starved
    }

    /// Whether nothing will ever move here again.
    #[must_use]
    pub fn is_over(&self) -> bool {
        match self.source {
            Source::Open => self.sink != Sink::Open,
            Source::Ended | Source::Reset => self.is_empty(),
        }
    }

    /// Whether no byte is held, be it in the ring or in the pipe.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ring.is_empty() && self.piped == 0
    }

    fn is_bulk(&self) -> bool {
        self.pace.bulk() >= BULK_FROM
    }

    /// Learns from how much of what was offered came at once.
    pub fn weigh(&mut self, count: usize, offered: usize) {
        let bulk = self.pace.bulk();
        self.pace.set_bulk(if count >= PLENTY_BYTES.min(offered) {
            bulk + 1
        } else {
            bulk.saturating_sub(1)
        });
    }

    /// No pipe for now: the ring takes what comes next, and it is learned anew whether this is bulk.
    pub fn avoid_pipe(&mut self) {
        self.pace.set_bulk(0);
    }

    /// The sink has let bytes wait for [`SLOW_MS`] or more.
    pub fn mark_slow(&mut self) {
        self.pace.set_slow_spans(SLOW_SPANS);
    }

    /// Another sink takes the place of the one that is known.
    pub fn forget_sink(&mut self) {
        self.pace = Pace::default();
    }

    /// Another message goes to the same sink. A short one counts for a span: who takes many is not slow for ever.
    pub fn go_on(&mut self) {
        self.pace.set_slow_spans(self.pace.slow_spans().saturating_sub(1));
    }

    /// Whether it only has small messages, as far as is known.
    #[must_use]
    pub fn is_small(&self) -> bool {
        self.pace.bulk() == 0
    }

    /// What is known of the sink.
    #[must_use]
    pub fn standing(&self) -> Standing {
        match self.pace.slow_spans() {
            0 if self.moved < PROVEN_BYTES => Standing::Fresh,
            0 => Standing::Proven,
            1.. => Standing::Slow,
        }
    }

    /// The sink took so many bytes more.
    pub fn count(&mut self, count: usize) {
        let spans = self.moved / SPAN_BYTES;
        self.moved += count as u64;
        let taken = u8::try_from(self.moved / SPAN_BYTES - spans).unwrap_or(u8::MAX);
        self.pace.set_slow_spans(self.pace.slow_spans().saturating_sub(taken));
    }

    /// A read put `count` bytes into `offered` bytes of space. Less than offered means that the socket was empty, which
    /// saves the read that would only say so; unless the peer has ended its direction, whose end is then still to be read.
    pub fn read(&mut self, count: usize, offered: usize, from: &mut Ready) {
        self.ring.filled(count);
        if count < offered && !from.read_closed && !from.urgent {
            from.readable = false;
        }
    }

    /// `count` bytes went into the pipe. Less than were asked for says nothing: a pipe is full when its slots are (kernel fact
    /// `a_pipe_fills_by_slots`). But it was empty before, so a would-block is always the source's.
    pub fn filled(&mut self, count: usize) {
        debug_assert!(self.is_empty(), "filled while bytes are held");
        self.piped = u32::try_from(count).unwrap_or(u32::MAX);
        self.weigh(count, PLENTY_BYTES);
    }

    /// The source has ended or failed.
    pub fn read_ended(&mut self, source: Source, from: &mut Ready) {
        self.source = source;
        from.readable = false;
    }

    /// The sink took `count` bytes of those held.
    pub fn wrote(&mut self, count: usize) {
        if self.piped > 0 {
            debug_assert!(count <= self.piped as usize, "more drained than held");
            self.piped = self.piped.saturating_sub(count as u32);
        } else {
            self.ring.drained(count);
        }
        self.count(count);
    }

    /// Forgets all bytes held.
    pub fn clear(&mut self) {
        self.ring.clear();
        self.piped = 0;
    }

    /// The sink failed: what was meant for it is lost.
    pub fn write_failed(&mut self) {
        self.sink = Sink::Broken;
        self.clear();
    }
}

/// How a failed read or write on a connected socket is to be understood: did the peer reset, or had it ended before?
///
/// `BrokenPipe` is what Linux reports when the reset came behind a FIN: the peer said all it had to say and then refused
/// to listen. Everything else on a connected socket (reset, timed out, unreachable) cuts off what the peer was saying.
#[must_use]
pub fn source_after(failure: Failure) -> Source {
    match failure {
        Failure::BrokenPipe => Source::Ended,
        Failure::Refused
        | Failure::Unreachable
        | Failure::TimedOut
        | Failure::Reset
        | Failure::Forbidden
        | Failure::NoDescriptors
        | Failure::NoResources
        | Failure::OwnListener
        | Failure::Other(_) => Source::Reset,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::ring::Pool;
    use super::*;

    fn ready(readable: bool, writable: bool) -> Ready {
        Ready { readable, writable, ..Ready::default() }
    }

    fn holding(bytes: &[u8]) -> Half {
        let mut half = Half::default();
        let storage = Pool::with_ceiling(1).lend().unwrap();
        assert!(half.ring.attach(storage).is_none());
        half.ring.fill_slice()[..bytes.len()].copy_from_slice(bytes);
        half.ring.filled(bytes.len());
        half
    }

    #[test]
    fn writes_before_it_shuts_down_before_it_reads() {
        let both = ready(true, true);
        let mut half = holding(b"abc");
        assert_eq!(half.next(both, both), Move::Write);
        assert_eq!(
            half.next(both, ready(true, false)),
            Move::Nothing,
            "holding bytes, it does not take more"
        );
        half.source = Source::Ended;
        assert_eq!(half.next(both, both), Move::Write);
        half.wrote(3);
        assert_eq!((half.next(both, both), half.moved), (Move::ShutdownWrite, 3));
        half.sink = Sink::Shut;
        assert_eq!(half.next(both, both), Move::Nothing);
        assert!(half.is_over());
    }

    #[test]
    fn reads_only_what_is_ready_and_storable() {
        let mut half = Half::default();
        assert_eq!(half.next(ready(true, false), ready(false, false)), Move::Read);
        assert_eq!(half.next(ready(false, false), ready(true, true)), Move::Nothing);
        half.supply = Supply::Starved;
        assert_eq!(half.next(ready(true, true), ready(true, true)), Move::Nothing);
    }

    #[test]
    fn short_read_means_drained_unless_the_end_was_announced() {
        let mut from = ready(true, true);
        let mut half = holding(b"");
        half.read(10, 10, &mut from);
        assert!(from.readable, "a full read says nothing about what is left");
        half.wrote(10);
        from.read_closed = true;
        half.read(3, 10, &mut from);
        assert!(from.readable, "the end is still to be read");
        half.wrote(3);
        from.read_closed = false;
        half.read(3, 10, &mut from);
        assert!(!from.readable);
    }

    #[test]
    fn a_slow_sink_is_not_slow_for_ever_nor_is_the_next_one() {
        let mut half = Half::default();
        half.mark_slow();
        half.weigh(PLENTY_BYTES, PLENTY_BYTES);
        for _ in 0..SLOW_SPANS {
            assert_eq!(half.standing(), Standing::Slow);
            // Another short answer.
            half.go_on();
        }
        assert_eq!((half.standing(), half.is_small()), (Standing::Fresh, false));
        half.mark_slow();
        half.forget_sink();
        assert_eq!((half.standing(), half.is_small()), (Standing::Fresh, true));
        half.count(PROVEN_BYTES as usize);
        assert_eq!(half.standing(), Standing::Proven);
    }

    #[test]
    fn broken_sink_takes_nothing_more() {
        let mut half = holding(b"lost");
        half.write_failed();
        assert_eq!(half.next(ready(true, true), ready(true, true)), Move::Nothing);
        assert!(half.ring.is_empty() && half.is_over());
        assert_eq!(half.moved, 0);
    }

    #[test]
    fn reset_behind_a_fin_is_an_end() {
        assert_eq!(source_after(Failure::BrokenPipe), Source::Ended);
        assert_eq!(source_after(Failure::Reset), Source::Reset);
        assert_eq!(source_after(Failure::TimedOut), Source::Reset);
    }
}

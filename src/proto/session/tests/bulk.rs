//! Tunnels of which a direction has proved to be bulk: pipes in place of rings.

use super::*;

/// What has moved already, half of it through a pipe.
const BEFORE: u64 = 8 * RING_BYTES as u64;

#[test]
fn bulk_goes_through_a_pipe_in_either_direction() {
    for side in [Side::Client, Side::Upstream] {
        let mut script = Script::bulk(side);
        script.session.return_storage(&mut script.pool);
        script.does(Step::Fill(side), Outcome::Moved(200_000));
        assert!(script.session.holds_pipe(side) && !script.session.holds_pipe(side.other()));
        script.does(Step::Drain(side.other()), Outcome::Moved(200_000));
        assert!(!script.session.holds_pipe(side));
        script.does(Step::Fill(side), Outcome::Blocked);
        script.waits();
        assert_eq!(script.pool.lent(), 0, "no ring is needed");
        let record = script.session.record(script.now);
        assert_eq!(record.up_bytes + record.down_bytes, BEFORE + 200_000);
    }
}

#[test]
fn bulk_small_reads_count_against_it() {
    let mut script = Script::tunneling();
    script.event(Side::Client, READABLE);
    // As often plenty as not.
    for _ in 0..10 {
        script.read(Side::Client, &[7; RING_BYTES]);
        script.writes(Side::Upstream, &[7; RING_BYTES]);
        script.read(Side::Client, &[7; RING_BYTES - 1]);
        script.writes(Side::Upstream, &[7; RING_BYTES - 1]);
        script.event(Side::Client, READABLE);
    }
    assert_eq!(script.session.step(), Step::Read(Side::Client));
}

#[test]
fn bulk_that_ends_in_small_messages_goes_back_to_rings() {
    let mut script = Script::bulk(Side::Client);
    for _ in 0..20 {
        script.does(Step::Fill(Side::Client), Outcome::Moved(RING_BYTES));
        script.does(Step::Drain(Side::Upstream), Outcome::Moved(RING_BYTES));
    }
    for _ in 0..5 {
        script.does(Step::Fill(Side::Client), Outcome::Moved(100));
        script.does(Step::Drain(Side::Upstream), Outcome::Moved(100));
    }
    script.read(Side::Client, b"small");
    script.writes(Side::Upstream, b"small");
    script.waits();
}

#[test]
fn bulk_partial_drain_and_would_block() {
    let mut script = Script::bulk(Side::Client);
    script.does(Step::Fill(Side::Client), Outcome::Moved(1_000));
    script.does(Step::Drain(Side::Upstream), Outcome::Moved(400));
    script.does(Step::Drain(Side::Upstream), Outcome::Blocked);
    assert_eq!(
        script.session.record(script.now).up_bytes,
        BEFORE + 400,
        "what is in the pipe is not there yet"
    );
    // Nothing more is taken meanwhile.
    script.event(Side::Client, READABLE);
    script.waits();
    assert!(script.session.holds_pipe(Side::Client));
    script.event(Side::Upstream, WRITABLE);
    script.does(Step::Drain(Side::Upstream), Outcome::Moved(600));
    assert_eq!(script.session.step(), Step::Fill(Side::Client));
}

#[test]
fn bulk_short_fill_is_not_drained() {
    let mut script = Script::bulk(Side::Client);
    script.does(Step::Fill(Side::Client), Outcome::Moved(1));
    script.does(Step::Drain(Side::Upstream), Outcome::Moved(1));
    script.does(Step::Fill(Side::Client), Outcome::Moved(1));
}

#[test]
fn bulk_end_is_said_by_a_read_alone() {
    let mut script = Script::bulk(Side::Client);
    script.event(Side::Client, CLOSED);
    script.does(Step::Fill(Side::Client), Outcome::Moved(500));
    script.does(Step::Drain(Side::Upstream), Outcome::Moved(500));
    script.does(Step::Fill(Side::Client), Outcome::Eof);
    script.does(Step::Read(Side::Client), Outcome::Eof);
    script.does(Step::ShutdownWrite(Side::Upstream), Outcome::Done);
    script.event(Side::Upstream, CLOSED);
    script.does(Step::Read(Side::Upstream), Outcome::Eof);
    script.ends(EndReason::Done);
    assert_eq!(script.session.record(script.now).up_bytes, BEFORE + 500);
}

#[test]
fn bulk_end_that_is_none_loses_nothing() {
    let mut script = Script::bulk(Side::Client);
    script.does(Step::Fill(Side::Client), Outcome::Eof);
    script.read(Side::Client, b"there is more");
    script.writes(Side::Upstream, b"there is more");
}

#[test]
fn bulk_a_side_vanishes() {
    let mut script = Script::bulk(Side::Client);
    script.event(Side::Client, BROKEN);
    script.does(Step::Fill(Side::Client), Outcome::Failed(Failure::TimedOut));
    script.ends(EndReason::ClientVanished);

    let mut script = Script::bulk(Side::Upstream);
    script.does(Step::Fill(Side::Upstream), Outcome::Moved(1_000));
    script.event(Side::Client, BROKEN);
    script.does(Step::Drain(Side::Client), Outcome::Failed(Failure::Unreachable));
    script.does(Step::Read(Side::Client), Outcome::Eof);
    script.ends(EndReason::ClientVanished);
}

#[test]
fn bulk_without_a_pipe_goes_through_rings() {
    let mut script = Script::bulk(Side::Client);
    script.does(Step::Fill(Side::Client), Outcome::NoStorage);
    assert!(!script.session.is_starved(), "nobody waits for a pipe");
    for _ in 0..4 {
        script.read(Side::Client, &[7; RING_BYTES]);
        script.writes(Side::Upstream, &[7; RING_BYTES]);
    }
    assert_eq!(script.session.step(), Step::Fill(Side::Client), "it is tried again, but not at once");
}

#[test]
fn bulk_behind_urgent_data_goes_through_rings() {
    let mut script = Script::bulk(Side::Client);
    // The mark: there are bytes, and a pipe gets none of them.
    script.does(Step::Fill(Side::Client), Outcome::Blocked);
    script.waits();
    script.event(Side::Client, Ready { urgent: true, ..READABLE });
    script.read(Side::Client, b"!");
    script.writes(Side::Upstream, b"!");
    for _ in 0..10 {
        script.read(Side::Client, &[7; RING_BYTES]);
        script.writes(Side::Upstream, &[7; RING_BYTES]);
    }
    script.does(Step::Read(Side::Client), Outcome::Blocked);
    script.waits();
}

#[test]
fn bulk_source_resets_behind_bytes() {
    let mut script = Script::bulk(Side::Upstream);
    script.does(Step::Fill(Side::Upstream), Outcome::Moved(300));
    script.does(Step::Drain(Side::Client), Outcome::Moved(300));
    script.does(Step::Fill(Side::Upstream), Outcome::Failed(Failure::Reset));
    script.ends(EndReason::UpstreamReset);
    assert_eq!(script.resets(), (true, false));
}

#[test]
fn bulk_source_resets_with_bytes_in_the_pipe() {
    let mut script = Script::bulk(Side::Upstream);
    script.does(Step::Fill(Side::Upstream), Outcome::Moved(300));
    script.does(Step::Drain(Side::Client), Outcome::Blocked);
    script.event(Side::Upstream, BROKEN);
    script.does(Step::TakeError(Side::Upstream), Outcome::Failed(Failure::Reset));
    script.waits();
    assert!(script.session.holds_pipe(Side::Upstream));
    script.event(Side::Client, WRITABLE);
    script.does(Step::Drain(Side::Client), Outcome::Moved(300));
    script.does(Step::Fill(Side::Upstream), Outcome::Eof);
    script.does(Step::Read(Side::Upstream), Outcome::Eof);
    script.ends(EndReason::UpstreamReset);
    assert_eq!(script.session.record(script.now).down_bytes, BEFORE + 300);
}

#[test]
fn bulk_sink_resets_with_bytes_in_the_pipe() {
    let mut script = Script::bulk(Side::Client);
    script.does(Step::Fill(Side::Client), Outcome::Moved(300));
    script.does(Step::Drain(Side::Upstream), Outcome::Moved(100));
    script.does(Step::Drain(Side::Upstream), Outcome::Failed(Failure::Reset));
    assert!(!script.session.holds_pipe(Side::Client), "what is in it goes nowhere");
    script.does(Step::Read(Side::Upstream), Outcome::Eof);
    script.ends(EndReason::UpstreamReset);
    assert_eq!(script.session.record(script.now).up_bytes, BEFORE + 100);
}

#[test]
fn bulk_end_waits_for_the_bytes_in_the_pipe() {
    let mut script = Script::bulk(Side::Client);
    script.does(Step::Fill(Side::Client), Outcome::Moved(300));
    script.event(Side::Client, CLOSED);
    script.does(Step::Drain(Side::Upstream), Outcome::Blocked);
    script.waits();
    script.event(Side::Upstream, WRITABLE);
    script.does(Step::Drain(Side::Upstream), Outcome::Moved(300));
    script.does(Step::Fill(Side::Client), Outcome::Eof);
    script.does(Step::Read(Side::Client), Outcome::Eof);
    script.does(Step::ShutdownWrite(Side::Upstream), Outcome::Done);
}

#[test]
fn bulk_deadlines_with_bytes_in_the_pipe() {
    for grace_is_over in [false, true] {
        let mut script = Script::bulk(Side::Client);
        script.does(Step::Fill(Side::Client), Outcome::Moved(300));
        script.does(Step::Drain(Side::Upstream), Outcome::Blocked);
        let reason = if grace_is_over {
            script.session.on_grace_over(script.now, &script.policy);
            EndReason::Grace
        } else {
            script.expires(Kind::Idle, 900_000);
            EndReason::IdleTimeout
        };
        assert_eq!(script.resets(), (true, true), "a stream that was cut off must not look complete");
        script.ends(reason);
    }
}

#[test]
fn bulk_directions_take_turns() {
    let mut script = Script::bulk(Side::Upstream);
    script.event(Side::Client, READABLE);
    let mut steps = Vec::new();
    for _ in 0..4 {
        let step = script.session.step();
        steps.push(step);
        match step {
            Step::Fill(Side::Upstream) => {
                script.does(step, Outcome::Moved(RING_BYTES));
                script.does(Step::Drain(Side::Client), Outcome::Moved(RING_BYTES));
            }
            Step::Read(Side::Client) => {
                script.read(Side::Client, &[7; RING_BYTES]);
                script.writes(Side::Upstream, &[7; RING_BYTES]);
            }
            other => panic!("{other:?}"),
        }
    }
    let turn = [Step::Read(Side::Client), Step::Fill(Side::Upstream)];
    assert_eq!(steps, [turn, turn].concat());
}

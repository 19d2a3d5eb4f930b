//! Beyond the limit: several loops with clients that are idle, busy or held, one limit for all of them, and what they ask each
//! other for.
//!
//! Loops take their turns as in `sys::event_loop`, but in small steps among which the others take theirs, and each by the
//! time at which its turn began. What one loop asks another arrives late and in any order, and a loop may stand still for longer
//! than anybody is held.

mod checks;

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;

use adit::proto::held::{Held, Next};
use adit::proto::idle_clients::{IdleClients, Search};
use adit::proto::plea::Plea;
use adit::proto::tick::Tick;
use adit::sys::shared::{Admission, Shared};

use crate::{Digest, Random, Seen};

const STEPS_MAX: u32 = 100_000;
const KEEP_MS: u64 = 60_000;

pub(super) const MUST_BE_SEEN: &[&str] = &[
    "held",
    "served at once",
    "served after being held",
    "refused",
    "refused because its time was over",
    "client's limit at once",
    "client's limit after being held",
    "gave way in its own loop",
    "gave way to another loop",
    "asked others",
    "nobody to ask",
    "less was wanted when it was to be given",
    "a search is not due yet",
    "a place was taken by somebody else",
    "a loop stands still",
    "as many held as may be",
    "a loop ends",
];

pub(super) fn run(seed: u64, traced: bool) -> Seen {
    let mut world = World::new(seed, traced);
    world.run();
    world.seen
}

pub(super) fn digest(seed: u64) -> u64 {
    let mut world = World::new(seed, false);
    world.run();
    world.digest.0
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Client {
    /// Of all who are held.
    number: usize,
    ip: IpAddr,
    /// Step in which it came, and when that was by its loop's clock.
    came: u32,
    came_at: Tick,
}

/// What happens to a session, when its loop hears of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum News {
    Asks,
    Answered,
    Ends,
    Rumour,
}

#[derive(Debug)]
struct Session {
    ip: IpAddr,
    /// Until when it is kept, while it is idle.
    idle_until: Option<Tick>,
    /// Since that step nothing has been heard of it.
    untouched_since: u32,
    /// In the run queue, for this.
    queued: Option<News>,
}

/// What one loop has asked another.
#[derive(Clone, Debug)]
struct Asked {
    asker: usize,
    number: u32,
    plea: Arc<Plea>,
}

/// Where a loop is in its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Asleep,
    /// It has drained, or quit.
    Gone,
    /// With this plea, to which it has given something in this turn.
    Answering(usize, bool),
    /// To this plea the place of this session, if it is still wanted.
    Giving(usize, usize),
    Accepting,
    Serving,
    /// The first of those who are held, if there is a place.
    Admitting(Client),
    /// For a place, for the first of those who are held.
    Looking(Client),
    Running,
}

#[derive(Debug)]
struct Loop {
    now: Tick,
    stage: Stage,
    /// Other than by what wakes it.
    sleeps_until: Option<Tick>,
    stands_still_until: Tick,
    called: bool,
    /// Not fetched yet.
    news: Vec<(usize, News)>,
    outside: VecDeque<IpAddr>,
    outside_is_news: bool,
    mail: Vec<Asked>,
    pleas: Vec<Asked>,
    /// Beyond their own limit, until the end of the turn.
    late: VecDeque<Client>,
    held: Held<Client>,
    idle: IdleClients,
    sessions: Vec<Option<Session>>,
    /// Places in its table of sessions. Most are tunnels that have nothing to do with this.
    places: usize,
    known: checks::Known,
}

struct World {
    random: Random,
    traced: bool,
    spurious: bool,
    /// Loops have their turns before time goes on.
    is_prompt: bool,
    now: Tick,
    step: u32,
    shared: Shared,
    sessions_max: usize,
    per_client_max: Option<usize>,
    loops: Vec<Loop>,
    /// The last clients all come to the same loop.
    is_uneven: bool,
    clients_left: usize,
    clients: usize,
    held: usize,
    addresses: usize,
    decided: usize,
    questions: u32,
    seen: Seen,
    digest: Digest,
}

impl World {
    fn new(seed: u64, traced: bool) -> World {
        let mut random = Random::seeded(seed);
        let most = random.pick(&[8, 8, 30]);
        let sessions_max = 1 + random.below(most);
        let per_client_max = random.one_in(3).then(|| 1 + random.below(4));
        let loops = (0..1 + random.below(4)).map(|_| Loop {
            now: Tick(0),
            stage: Stage::Asleep,
            sleeps_until: None,
            stands_still_until: Tick(0),
            called: false,
            news: Vec::new(),
            outside: VecDeque::new(),
            outside_is_news: false,
            mail: Vec::new(),
            pleas: Vec::new(),
            late: VecDeque::new(),
            held: Held::default(),
            idle: IdleClients::default(),
            sessions: Vec::new(),
            places: random.pick(&[100, 1_500, 6_000]),
            known: checks::Known::default(),
        });
        let loops = loops.collect();
        World {
            traced,
            spurious: random.one_in(3),
            is_prompt: random.one_in(2),
            now: Tick(0),
            step: 0,
            shared: Shared::new(sessions_max, per_client_max),
            sessions_max,
            per_client_max,
            loops,
            is_uneven: random.one_in(2),
            clients_left: if random.one_in(10) { 300 } else { 1 + random.below(80) },
            clients: 0,
            held: 0,
            addresses: 1 + random.below(8),
            decided: 0,
            questions: 0,
            seen: Seen::new(),
            digest: Digest::default(),
            random,
        }
    }

    fn note(&mut self, what: &'static str) {
        *self.seen.entry(what).or_default() += 1;
    }

    fn tell(&mut self, what: std::fmt::Arguments<'_>) {
        let line = format!("{} {:?} {what}", self.step, self.now);
        self.digest.add(line.as_bytes());
        if self.traced {
            println!("{line}");
        }
    }

    fn run(&mut self) {
        let (max, per_client) = (self.sessions_max, self.per_client_max);
        self.tell(format_args!("{} loops, {max} sessions, {per_client:?} of a client", self.loops.len()));
        for step in 1..STEPS_MAX {
            self.step = step;
            let can_run = |at: &usize| self.loops[*at].can_run(self.now);
            let awake: Vec<usize> = (0..self.loops.len()).filter(can_run).collect();
            if !awake.is_empty() && !self.random.one_in(4) {
                let at = self.random.pick(&awake);
                self.take_turn(at);
                self.check();
                continue;
            }
            if awake.is_empty() && self.is_quiet() {
                self.check_quiet();
                if self.is_over() {
                    return self.check_end();
                }
            }
            self.something_happens(awake.is_empty());
        }
        panic!("never ends: {:?}", self.loops);
    }

    fn is_quiet(&self) -> bool {
        self.loops.iter().all(|it| it.sleeps(self.now))
    }

    fn is_over(&self) -> bool {
        let is_over = |it: &Loop| {
            it.sessions.iter().all(Option::is_none) && it.outside.is_empty() && it.held.is_empty()
        };
        self.clients_left == 0 && self.loops.iter().all(is_over)
    }

    fn something_happens(&mut self, is_asleep: bool) {
        let at = self.random.below(self.loops.len());
        match self.random.below(8) {
            0 if self.clients_left > 0 => self.clients_come(at),
            0..=4 => self.news(at),
            5 if !self.is_prompt && self.random.one_in(20) => {
                self.note("a loop stands still");
                self.loops[at].stands_still_until = self.now.after(self.random.below(1_500) as u64);
            }
            6 if self.spurious => self.loops[at].called = true,
            7 if self.loops[at].stage == Stage::Asleep && self.random.one_in(100) => self.leave(at),
            _ if is_asleep || !self.is_prompt => self.time_goes_on(is_asleep),
            _ => {}
        }
    }

    fn time_goes_on(&mut self, is_asleep: bool) {
        let due = self.loops.iter().flat_map(|it| [it.sleeps_until, Some(it.stands_still_until)]);
        let next = due.flatten().filter(|due| *due > self.now).min();
        self.now = match next {
            Some(due) if is_asleep && self.random.one_in(2) => due,
            Some(_) | None => self.now.after(self.random.below(4) as u64),
        };
    }

    /// The loop ends.
    fn leave(&mut self, at: usize) {
        self.note("a loop ends");
        self.tell(format_args!("{at}: ends"));
        let it = &mut self.loops[at];
        it.stage = Stage::Gone;
        it.sleeps_until = None;
        it.outside.clear();
        for asked in it.pleas.split_off(0).into_iter().chain(it.mail.split_off(0)) {
            asked.plea.answer();
            self.loops[asked.asker].called = true;
        }
        while self.loops[at].held.pop().is_some() {
            self.decided += 1;
        }
        for key in 0..self.loops[at].sessions.len() {
            if self.loops[at].sessions[key].is_some() {
                self.free(at, key, None);
            }
        }
    }

    fn clients_come(&mut self, at: usize) {
        // Those who come last find no idle client in their own loop.
        let at = if self.is_uneven && self.clients_left < 30 { 0 } else { at };
        let most = self.random.pick(&[1, 1, 1, 4, 16, 100]);
        let crowd = 1 + self.random.below(most);
        for _ in 0..crowd.min(self.clients_left) {
            self.clients_left -= 1;
            if self.loops[at].stage == Stage::Gone {
                continue;
            }
            let ip = IpAddr::from([10, 0, 0, self.random.below(self.addresses) as u8]);
            self.loops[at].outside.push_back(ip);
            self.loops[at].outside_is_news = true;
        }
    }

    /// Of a session of this loop.
    fn news(&mut self, at: usize) {
        let is_late = self.clients_left == 0;
        let rumours = self.spurious && !is_late;
        let it = &self.loops[at];
        let told = |key: &usize| it.news.iter().all(|(of, _)| of != key);
        let keys: Vec<usize> =
            (0..it.sessions.len()).filter(|&key| it.sessions[key].is_some()).filter(told).collect();
        if keys.is_empty() {
            return;
        }
        let key = self.random.pick(&keys);
        let is_idle = self.loops[at].sessions[key].as_ref().is_some_and(|one| one.idle_until.is_some());
        let news = match self.random.below(8) {
            0 => News::Ends,
            1..=2 if rumours => News::Rumour,
            _ if is_late => News::Ends,
            _ if !is_idle => News::Answered,
            // Most stay idle.
            3 => News::Asks,
            _ => return,
        };
        self.loops[at].news.push((key, news));
    }

    fn take_turn(&mut self, at: usize) {
        match self.loops[at].stage {
            Stage::Asleep => self.wake(at),
            Stage::Gone => unreachable!("it cannot run"),
            Stage::Answering(place, has_given) => self.answer(at, place, has_given),
            Stage::Giving(place, key) => self.give(at, place, key),
            Stage::Accepting => self.accept(at),
            Stage::Serving => self.serve(at),
            Stage::Admitting(client) => self.admit(at, client),
            Stage::Looking(client) => self.look_for_place(at, client),
            Stage::Running => self.run_one(at),
        }
    }

    fn wake(&mut self, at: usize) {
        let (now, step) = (self.now, self.step);
        let it = &mut self.loops[at];
        it.known.wakes(it.called || it.outside_is_news || !it.news.is_empty());
        it.now = now;
        it.sleeps_until = None;
        it.outside_is_news = false;
        if std::mem::take(&mut it.called) {
            while !it.mail.is_empty() {
                let asked = it.mail.swap_remove(self.random.below(it.mail.len()));
                it.pleas.push(asked);
            }
        }
        for (key, news) in std::mem::take(&mut it.news) {
            if let Some(session) = &mut it.sessions[key] {
                (session.queued, session.untouched_since) = (Some(news), step);
            }
        }
        it.stage = Stage::Accepting;
    }

    fn longest_idle(&mut self, at: usize) -> Search {
        let it = &mut self.loops[at];
        let sessions = &it.sessions;
        let idle_until =
            |key: usize| sessions.get(key)?.as_ref().filter(|one| one.queued.is_none())?.idle_until;
        let search = it.idle.longest(it.places, idle_until, it.now);
        if search == Search::TooEarly {
            self.note("a search is not due yet");
        } else {
            self.loops[at].known.did();
        }
        self.tell(format_args!("{at}: {search:?}"));
        search
    }

    fn answer(&mut self, at: usize, place: usize, has_given: bool) {
        let Some(Asked { asker, number, plea }) = self.loops[at].pleas.get(place).cloned() else {
            self.loops[at].stage = Stage::Serving;
            return;
        };
        let is_answered = if plea.is_unmet() {
            match self.longest_idle(at) {
                Search::Found(key) => {
                    self.loops[at].stage = Stage::Giving(place, key);
                    return;
                }
                Search::Nobody => true,
                Search::TooEarly => false,
            }
        } else {
            true
        };
        if is_answered {
            plea.answer();
            self.loops[at].pleas.remove(place);
            self.loops[at].known.did();
            self.tell(format_args!("{at}: has answered question {number} of {asker}"));
        }
        if has_given || is_answered {
            self.loops[asker].called = true;
        }
        self.loops[at].stage = Stage::Answering(place + usize::from(!is_answered), false);
    }

    fn give(&mut self, at: usize, place: usize, key: usize) {
        let Asked { asker, number, plea } = self.loops[at].pleas[place].clone();
        if plea.give(1) {
            self.note("gave way to another loop");
            self.check_somebody_needs_it(asker, number);
            self.give_up(at, key, Some(asker));
        } else {
            self.note("less was wanted when it was to be given");
        }
        self.loops[at].stage = Stage::Answering(place, true);
    }

    fn give_up(&mut self, at: usize, key: usize, to: Option<usize>) {
        self.check_gives_way(at, key);
        self.tell(format_args!("{at}: {key} gives way to {to:?}"));
        self.free(at, key, to);
    }

    fn free(&mut self, at: usize, key: usize, to: Option<usize>) {
        let session = self.loops[at].sessions[key].take().unwrap();
        self.shared.leave(session.ip);
        self.place_is_free(at, to);
    }

    fn accept(&mut self, at: usize) {
        if self.loops[at].held.is_full() {
            self.note("as many held as may be");
        } else if let Some(ip) = self.loops[at].outside.pop_front() {
            return self.admit_or_hold(at, ip);
        }
        self.loops[at].stage = Stage::Running;
    }

    fn admit_or_hold(&mut self, at: usize, ip: IpAddr) {
        let it = &mut self.loops[at];
        it.known.did();
        let client = Client { number: 0, ip, came: self.step, came_at: it.now };
        self.clients += 1;
        match self.admission(at, client) {
            Admission::Granted => {
                self.note("served at once");
                self.begin(at, ip);
            }
            Admission::Full => self.hold(at, client),
            Admission::ClientFull => self.loops[at].late.push_back(client),
        }
    }

    fn admission(&mut self, at: usize, client: Client) -> Admission {
        let ip = client.ip;
        let it = &self.loops[at];
        let held = it.held.iter().filter(|held| held.ip == ip).count();
        let admission = if it.held.is_empty() {
            self.shared.admit(ip)
        } else if self.shared.client_may_have(ip, held + 1) {
            Admission::Full
        } else {
            Admission::ClientFull
        };
        self.tell(format_args!("{at}: a client of {ip}: {admission:?}"));
        self.check_own_limit(ip, held, admission == Admission::ClientFull);
        admission
    }

    fn hold(&mut self, at: usize, client: Client) {
        self.note("held");
        // Who was late has lost its place before those who have come in the same turn.
        let number = self.held;
        self.held += 1;
        let it = &mut self.loops[at];
        it.held.push(Client { number, ..client }, it.now);
    }

    fn serve(&mut self, at: usize) {
        if let Some(client) = self.loops[at].late.pop_front() {
            match self.admission(at, client) {
                Admission::Granted => {
                    self.note("served once another one of the client's had ended");
                    self.begin(at, client.ip);
                }
                Admission::Full => self.hold(at, client),
                Admission::ClientFull => {
                    self.note("client's limit at once");
                    self.check_nobody_is_leaving(at);
                    self.decided += 1;
                }
            }
            return;
        }
        let it = &mut self.loops[at];
        let Some(&client) = it.held.first(it.now) else { return self.sleep(at) };
        it.stage = Stage::Admitting(client);
    }

    fn admit(&mut self, at: usize, client: Client) {
        self.loops[at].stage = Stage::Serving;
        let admission = self.shared.admit(client.ip);
        if admission == Admission::Full {
            self.no_place(at);
            self.loops[at].stage = Stage::Looking(client);
            return;
        }
        self.tell(format_args!("{at}: client {} that was held: {admission:?}", client.number));
        let it = &mut self.loops[at];
        if admission == Admission::Granted {
            let first = it.held.pop();
            self.note("served after being held");
            self.check_first(at, first, client);
            self.begin(at, client.ip);
        } else {
            let first = it.held.turn_away();
            self.note("client's limit after being held");
            self.check_first(at, first, client);
            self.check_own_limit(client.ip, 0, true);
            self.decided += 1;
        }
    }

    fn look_for_place(&mut self, at: usize, client: Client) {
        let it = &mut self.loops[at];
        it.stage = Stage::Serving;
        match it.held.next(it.idle.due(), it.now) {
            Next::Search => match self.longest_idle(at) {
                Search::Found(key) => {
                    self.note("gave way in its own loop");
                    self.give_up(at, key, None);
                }
                Search::Nobody => self.loops[at].held.found_nobody(),
                Search::TooEarly => {}
            },
            Next::Ask(wanted) => self.ask_others(at, wanted),
            Next::Refuse => {
                self.tell(format_args!("{at}: client {} is refused", client.number));
                self.check_refused(at, client);
                let first = self.loops[at].held.turn_away();
                self.check_first(at, first, client);
                self.decided += 1;
            }
            Next::Wait => {
                self.check_held(at);
                self.sleep(at);
            }
        }
    }

    fn ask_others(&mut self, at: usize, wanted: usize) {
        self.check_may_ask(at, wanted);
        let is_there = |other: &usize| *other != at && self.loops[*other].stage != Stage::Gone;
        let others: Vec<usize> = (0..self.loops.len()).filter(is_there).collect();
        if others.is_empty() {
            self.note("nobody to ask");
            let it = &mut self.loops[at];
            return it.held.asked(None, it.now);
        }
        self.note("asked others");
        self.questions += 1;
        let (asker, number) = (at, self.questions);
        let plea = Arc::new(Plea::new(wanted, others.len()));
        self.tell(format_args!("{at}: question {number}, for {wanted}"));
        for other in others {
            self.loops[other].mail.push(Asked { asker, number, plea: Arc::clone(&plea) });
            self.loops[other].called = true;
        }
        let it = &mut self.loops[at];
        it.held.asked(Some(plea), it.now);
    }

    fn check_first(&mut self, at: usize, first: Option<Client>, client: Client) {
        self.loops[at].known.did();
        assert_eq!(first, Some(client));
        self.check_order(at, client);
    }

    /// Another one is served.
    fn begin(&mut self, at: usize, ip: IpAddr) {
        self.decided += 1;
        self.place_is_taken(at);
        let it = &mut self.loops[at];
        let session = Session { ip, idle_until: None, untouched_since: self.step, queued: None };
        match it.sessions.iter_mut().find(|place| place.is_none()) {
            Some(place) => *place = Some(session),
            None => it.sessions.push(Some(session)),
        }
    }

    fn run_one(&mut self, at: usize) {
        let it = &mut self.loops[at];
        let is_queued = |place: &Option<Session>| place.as_ref().is_some_and(|one| one.queued.is_some());
        let Some(key) = it.sessions.iter().position(is_queued) else {
            it.stage = Stage::Answering(0, false);
            return;
        };
        it.known.did();
        let session = it.sessions[key].as_mut().unwrap();
        session.untouched_since = self.step;
        match session.queued.take().unwrap() {
            News::Asks => session.idle_until = None,
            News::Answered => session.idle_until = Some(it.now.after(KEEP_MS)),
            News::Rumour => {}
            News::Ends => {
                self.tell(format_args!("{at}: {key} ends"));
                self.free(at, key, None);
            }
        }
    }

    fn sleep(&mut self, at: usize) {
        let has_place = self.shared.has_place();
        let it = &mut self.loops[at];
        let can_accept = !it.outside.is_empty() && !it.held.is_full();
        let can_serve = !it.held.is_empty() && has_place;
        let idle_due = it.idle.due();
        let plea_due = it.pleas.first().map(|_| idle_due);
        it.sleeps_until = if can_accept || can_serve {
            Some(it.now)
        } else {
            [it.held.due(idle_due), plea_due].into_iter().flatten().min()
        };
        it.stage = Stage::Asleep;
        it.known.sleeps(can_serve);
    }
}

impl Loop {
    fn can_run(&self, now: Tick) -> bool {
        self.stands_still_until <= now && !self.sleeps(now)
    }

    /// And nothing wakes it by now, if anything does.
    fn sleeps(&self, now: Tick) -> bool {
        self.stage == Stage::Gone || self.stage == Stage::Asleep && !self.is_woken(now)
    }

    fn is_woken(&self, now: Tick) -> bool {
        self.called
            || self.outside_is_news
            || !self.news.is_empty()
            || self.sleeps_until.is_some_and(|due| due <= now)
    }
}

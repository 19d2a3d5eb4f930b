//! Credentials that wait for a hash: which is next. Clients take turns, one that has shown wrong ones waits longer each time,
//! and who is asked for twice is computed once.

use std::net::IpAddr;
use std::sync::Arc;

use super::credentials::Basic;
use super::logins::Tag;
use super::tick::Tick;
use super::users::Users;

/// Questions in all. Each is [`QUESTION_BYTES`] at most; with hashes of 50 ms the last of them is answered just in time.
pub const QUESTIONS_MAX: usize = 256;
/// Questions of one client that was wrong lately. Many that were not may share an address.
pub const QUESTIONS_PER_CLIENT: usize = 16;
/// Clients that are known: those that have asked, and those that were wrong lately.
pub const CLIENTS_MAX: usize = 2 * QUESTIONS_MAX;
/// Longest field with credentials that is looked at: a name of 255 bytes and a password of 256 take 690.
pub const CREDENTIALS_MAX_BYTES: usize = 700;
/// Memory that one question takes at most: decoded, both parts may have room for all of it.
pub const QUESTION_BYTES: usize = 2 * CREDENTIALS_MAX_BYTES * 3 / 4 + 256;
/// Memory of one client.
pub const CLIENT_BYTES: usize = size_of::<Client>();
/// Milliseconds that a client waits behind its first wrong answer, twice as long behind each further one.
const DELAY_MS: u64 = 100;
/// The longest that it waits.
pub const DELAY_MAX_MS: u64 = 4_000;
/// Behind so many milliseconds without a wrong answer, one of them is forgotten.
const FORGIVEN_MS: u64 = 10_000;
/// More are not counted: they would only take longer to be forgotten.
const FAILURES_MAX: u8 = 8;
const _: () = assert!(DELAY_MS << (FAILURES_MAX - 1) >= DELAY_MAX_MS);
const _: () = assert!(CLIENTS_MAX > QUESTIONS_MAX, "a client that asks always finds a place");

/// Credentials that are to be verified.
pub struct Question {
    /// Stands for the credentials.
    pub tag: Tag,
    /// What was shown.
    pub basic: Basic,
    /// Those who may log in.
    pub users: Arc<Users>,
}

/// What became of a question.
#[derive(Debug, PartialEq)]
pub enum Asked {
    /// It waits for its turn, or for the answer to the same question.
    Waits,
    /// So it does, in the place of another one.
    WaitsInstead(PushedOut),
    /// [`QUESTIONS_MAX`] wait already.
    QueueFull,
    /// [`QUESTIONS_PER_CLIENT`] of this client wait already, or so many that nobody has more and all places are taken.
    ClientFull,
}

/// A question that is not answered: the last one of the client that has most, when there was no room.
#[derive(Debug, PartialEq)]
pub struct PushedOut {
    /// As it was in [`Question::tag`].
    pub tag: Tag,
    /// As they were in [`Question::users`].
    pub users: Arc<Users>,
    /// Who waits for it in vain.
    pub askers: Vec<u16>,
}

/// What is to be done.
pub enum Next {
    /// Answer this one; the answer goes to [`LoginQueue::answered`].
    Verify(Question),
    /// Nothing before that.
    At(Tick),
    /// Nothing until somebody asks.
    Nothing,
}

/// See the module's documentation. All of it is bounded, and few: everything is found by looking from end to end.
#[derive(Default)]
pub struct LoginQueue {
    /// In order of arrival.
    waiting: Vec<Waiting>,
    clients: Vec<Client>,
    /// Counts the turns.
    turns: u64,
}

struct Waiting {
    tag: Tag,
    /// With another users file it is another question.
    users: Arc<Users>,
    /// Until it is being answered.
    basic: Option<Basic>,
    /// Position in [`LoginQueue::clients`].
    client: usize,
    /// Loops that wait for the answer.
    askers: Vec<u16>,
}

struct Client {
    /// See [`neighbourhood`].
    address: u128,
    /// Questions of it.
    waiting: usize,
    /// When it had its last turn; of one that is new, when it came. So all that are new stand behind one that has waited.
    turn: u64,
    failures: u8,
    failed_at: Tick,
}

impl LoginQueue {
    /// The loop `asker` wants to know.
    pub fn ask(&mut self, question: Question, client: IpAddr, asker: u16, now: Tick) -> Asked {
        let tag = question.tag;
        if let Some(at) = self.waiting.iter().position(|waiting| waiting.is(tag, &question.users)) {
            self.join(at, client, asker, now);
            return Asked::Waits;
        }
        let client = self.client(client, now);
        let Client { waiting, .. } = self.clients[client];
        if waiting >= QUESTIONS_PER_CLIENT && self.clients[client].failures(now) > 0 {
            return Asked::ClientFull;
        }
        let mut asked = Asked::Waits;
        if self.waiting.len() >= QUESTIONS_MAX {
            match self.push_out(client, now) {
                Some(out) => asked = Asked::WaitsInstead(out),
                None if waiting > 0 => return Asked::ClientFull,
                None => return Asked::QueueFull,
            }
        }
        self.clients[client].waiting += 1;
        let Question { tag, basic, users } = question;
        self.waiting.push(Waiting { tag, users, basic: Some(basic), client, askers: vec![asker] });
        asked
    }

    /// The loop does not want to know any more, by whatever users file. A question that nobody asks is not answered.
    pub fn withdraw(&mut self, tag: Tag, asker: u16) {
        for at in (0..self.waiting.len()).rev() {
            let waiting = &mut self.waiting[at];
            if waiting.tag != tag {
                continue;
            }
            waiting.askers.retain(|&other| other != asker);
            // What is being answered keeps its place until it is.
            if waiting.askers.is_empty() && waiting.basic.is_some() {
                self.remove(at);
            }
        }
    }

    /// The first question of the client whose last turn was longest ago, among those that need not wait.
    pub fn next(&mut self, now: Tick) -> Next {
        let clients = &self.clients;
        let open = self.waiting.iter().enumerate().filter(|(_, waiting)| waiting.basic.is_some());
        let due = |at: usize| clients[at].due(now);
        let ready = open.clone().filter(|(_, waiting)| due(waiting.client) <= now);
        // The first of several that are equal: the order of arrival.
        let Some((at, _)) = ready.min_by_key(|(_, waiting)| clients[waiting.client].turn) else {
            return open.map(|(_, waiting)| due(waiting.client)).min().map_or(Next::Nothing, Next::At);
        };
        self.turns += 1;
        let waiting = &mut self.waiting[at];
        self.clients[waiting.client].turn = self.turns;
        let (tag, users) = (waiting.tag, Arc::clone(&waiting.users));
        waiting.basic.take().map_or(Next::Nothing, |basic| Next::Verify(Question { tag, basic, users }))
    }

    /// The answer to a question that [`LoginQueue::next`] has handed out. Returns who waits for it.
    pub fn answered(&mut self, tag: Tag, users: &Arc<Users>, is_right: bool, now: Tick) -> Vec<u16> {
        let same = |waiting: &Waiting| waiting.is(tag, users);
        let Some(at) = self.waiting.iter().position(same) else { return Vec::new() };
        let waiting = self.remove(at);
        if !is_right {
            let client = &mut self.clients[waiting.client];
            client.failures = (client.failures(now) + 1).min(FAILURES_MAX);
            client.failed_at = now;
        }
        waiting.askers
    }

    /// Whether no question waits or is being answered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    fn remove(&mut self, at: usize) -> Waiting {
        let waiting = self.waiting.remove(at);
        self.clients[waiting.client].waiting -= 1;
        waiting
    }

    /// Another one with that question. It waits as long as the client that may have it answered first.
    fn join(&mut self, at: usize, address: IpAddr, asker: u16, now: Tick) {
        let waiting = &mut self.waiting[at];
        if !waiting.askers.contains(&asker) {
            waiting.askers.push(asker);
        }
        let (before, is_open) = (waiting.client, waiting.basic.is_some());
        let known = self.clients.iter().find(|client| client.address == neighbourhood(address));
        let due = known.map_or(now, |client| client.due(now));
        if is_open && due.max(now) < self.clients[before].due(now) {
            let client = self.client(address, now);
            self.clients[client].waiting += 1;
            self.clients[before].waiting -= 1;
            self.waiting[at].client = client;
        }
    }

    /// Makes room for one more question of `client`: a few that ask much lock nobody out. `None` if it has the largest share
    /// itself.
    fn push_out(&mut self, client: usize, now: Tick) -> Option<PushedOut> {
        let share = |at: usize| (self.clients[at].waiting, self.clients[at].failures(now));
        let open = self.waiting.iter().enumerate().filter(|(_, waiting)| waiting.basic.is_some());
        // The last of several that are equal.
        let (at, last) = open.max_by_key(|(_, waiting)| share(waiting.client))?;
        let (waiting, failures) = share(client);
        if (waiting + 1, failures) >= share(last.client) {
            return None;
        }
        let Waiting { tag, users, askers, .. } = self.remove(at);
        Some(PushedOut { tag, users, askers })
    }

    /// Where this client stands. One about which nothing need be known makes room, or else the one that was wrong least lately.
    fn client(&mut self, address: IpAddr, now: Tick) -> usize {
        let address = neighbourhood(address);
        if let Some(at) = self.clients.iter().position(|client| client.address == address) {
            return at;
        }
        let fresh = Client { address, waiting: 0, turn: self.turns, failures: 0, failed_at: Tick(0) };
        let idle = self.clients.iter().enumerate().filter(|(_, client)| client.waiting == 0);
        let oldest = idle.min_by_key(|(_, client)| (client.failures(now), client.failed_at));
        match oldest {
            Some((at, client)) if client.failures(now) == 0 || self.clients.len() >= CLIENTS_MAX => {
                self.clients[at] = fresh;
                at
            }
            Some(_) | None => {
                self.clients.push(fresh);
                self.clients.len() - 1
            }
        }
    }
}

impl Waiting {
    fn is(&self, tag: Tag, users: &Arc<Users>) -> bool {
        self.tag == tag && Arc::ptr_eq(&self.users, users)
    }
}

impl Client {
    /// Those that are not forgiven yet.
    fn failures(&self, now: Tick) -> u8 {
        let forgiven = now.since(self.failed_at) / FORGIVEN_MS;
        self.failures.saturating_sub(u8::try_from(forgiven).unwrap_or(u8::MAX))
    }

    /// When it may have its next turn. What was forgiven meanwhile shortens the wait.
    fn due(&self, now: Tick) -> Tick {
        match self.failures(now) {
            0 => Tick(0),
            failures => self.failed_at.after((DELAY_MS << (failures - 1)).min(DELAY_MAX_MS)),
        }
    }
}

/// Whom an address stands for: an IPv6 client has a whole /64 of them.
fn neighbourhood(address: IpAddr) -> u128 {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits() >> 64 << 64,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::proto::logins::Tagger;
    use std::collections::hash_map::RandomState;

    struct Scene {
        queue: LoginQueue,
        users: Arc<Users>,
        tagger: Tagger,
        now: Tick,
    }

    impl Scene {
        fn new() -> Scene {
            let users = Users::parse(b"alice:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=\n").unwrap();
            let tagger = Tagger::new(RandomState::new());
            Scene { queue: LoginQueue::default(), users: Arc::new(users), tagger, now: Tick(1_000_000) }
        }

        fn tag(&self, name: &str) -> Tag {
            self.tagger.tag(name.as_bytes())
        }

        fn ask_for(&mut self, name: &str, client: &str, asker: u16) -> Asked {
            let basic = Basic { user: name.into(), password: b"secret".to_vec() };
            let question = Question { tag: self.tag(name), basic, users: Arc::clone(&self.users) };
            self.queue.ask(question, client.parse().unwrap(), asker, self.now)
        }

        fn ask(&mut self, name: &str, client: &str) {
            assert_eq!(self.ask_for(name, client, 0), Asked::Waits);
        }

        fn next(&mut self) -> String {
            match self.queue.next(self.now) {
                Next::Verify(question) => String::from_utf8(question.basic.user).unwrap(),
                Next::At(due) => format!("in {}", due.since(self.now)),
                Next::Nothing => "nothing".into(),
            }
        }

        #[track_caller]
        fn pushes_out(&mut self, name: &str, client: &str, other: &str) {
            let out = PushedOut { tag: self.tag(other), users: Arc::clone(&self.users), askers: vec![0] };
            assert_eq!(self.ask_for(name, client, 0), Asked::WaitsInstead(out));
        }

        /// That it was, lately.
        fn is_wrong(&mut self, client: &str) {
            self.ask("mistyped", client);
            self.answers("mistyped", false);
        }

        #[track_caller]
        fn answers(&mut self, name: &str, is_right: bool) -> Vec<u16> {
            assert_eq!(self.next(), name);
            self.queue.answered(self.tag(name), &self.users, is_right, self.now)
        }
    }

    #[test]
    fn clients_take_turns() {
        let mut scene = Scene::new();
        for name in ["a1", "a2", "a3", "a4"] {
            scene.ask(name, "10.0.0.1");
        }
        scene.ask("b1", "10.0.0.2");
        scene.ask("c1", "10.0.0.3");
        scene.ask("b2", "10.0.0.2");
        for name in ["a1", "b1", "c1", "a2", "b2", "a3"] {
            assert_eq!(scene.answers(name, true), [0]);
        }
        // Who comes back waits for one question of the others, not for all.
        scene.ask("c2", "10.0.0.3");
        for name in ["c2", "a4"] {
            scene.answers(name, true);
        }
        assert_eq!(scene.next(), "nothing");
        assert!(scene.queue.is_empty());
    }

    #[test]
    fn new_clients_do_not_go_before_one_that_was_wrong_once() {
        let mut scene = Scene::new();
        scene.ask("mistyped", "10.0.0.1");
        scene.answers("mistyped", false);
        scene.ask("right", "10.0.0.1");
        // As fast as they are answered, others come, each with an address of its own.
        for at in 0..20 {
            scene.ask(&format!("n{at}"), &format!("10.1.0.{at}"));
        }
        for at in 20..22 {
            scene.answers(&format!("n{}", at - 20), false);
            scene.now = scene.now.after(DELAY_MS / 2);
            scene.ask(&format!("n{at}"), &format!("10.1.0.{at}"));
        }
        scene.answers("right", true);
    }

    #[test]
    fn who_is_wrong_waits_longer_each_time_and_nobody_else_does() {
        let mut scene = Scene::new();
        for at in 0..12 {
            scene.ask(&format!("a{at}"), "10.0.0.1");
        }
        for (at, delay_ms) in [100, 200, 400, 800, 1_600, 3_200, 4_000, 4_000].into_iter().enumerate() {
            scene.answers(&format!("a{at}"), false);
            assert_eq!(scene.next(), format!("in {delay_ms}"));
            scene.ask("b", "10.0.0.2");
            scene.answers("b", true);
            scene.now = scene.now.after(delay_ms - 1);
            assert_eq!(scene.next(), "in 1");
            scene.now = scene.now.after(1);
        }
        // A right one takes nothing back, time does.
        scene.answers("a8", true);
        scene.answers("a9", false);
        assert_eq!(scene.next(), "in 4000");
        scene.now = scene.now.after(4 * FORGIVEN_MS);
        scene.answers("a10", false);
        assert_eq!(scene.next(), "in 1600");
        scene.now = scene.now.after(8 * FORGIVEN_MS);
        scene.answers("a11", false);
        scene.ask("a12", "10.0.0.1");
        assert_eq!(scene.next(), "in 100");
    }

    #[test]
    fn the_same_question_is_answered_once_for_all_who_ask() {
        let mut scene = Scene::new();
        assert_eq!(scene.ask_for("a", "10.0.0.1", 0), Asked::Waits);
        assert_eq!(scene.ask_for("a", "10.0.0.2", 3), Asked::Waits);
        assert_eq!(scene.ask_for("a", "10.0.0.2", 3), Asked::Waits);
        assert_eq!(scene.next(), "a");
        assert_eq!(scene.next(), "nothing");
        // Even while it is being answered.
        assert_eq!(scene.ask_for("a", "10.0.0.1", 1), Asked::Waits);
        assert_eq!(scene.next(), "nothing");
        assert_eq!(scene.queue.answered(scene.tag("a"), &scene.users, true, scene.now), [0, 3, 1]);
        assert!(scene.queue.is_empty());
        assert_eq!(scene.ask_for("a", "10.0.0.1", 0), Asked::Waits);
        scene.answers("a", true);
        assert_eq!(scene.queue.clients.len(), 1);
    }

    #[test]
    fn who_asks_the_same_as_one_that_was_wrong_does_not_wait_with_it() {
        let mut scene = Scene::new();
        scene.is_wrong("10.0.0.1");
        scene.ask("a", "10.0.0.1");
        scene.ask("b", "10.0.0.1");
        assert_eq!(scene.next(), "in 100");
        assert_eq!(scene.ask_for("a", "10.0.0.2", 3), Asked::Waits);
        let shares =
            |scene: &Scene| scene.queue.clients.iter().map(|client| client.waiting).collect::<Vec<_>>();
        assert_eq!(shares(&scene), [1, 1]);
        // Nor does it change anything that the slowed one asks again.
        assert_eq!(scene.ask_for("a", "10.0.0.1", 5), Asked::Waits);
        scene.queue.withdraw(scene.tag("a"), 5);
        assert_eq!(scene.answers("a", false), [0, 3]);
        assert_eq!(shares(&scene), [1, 0]);
        // Both are slowed by now, the second as long as the first: nothing to be won.
        scene.ask("b", "10.0.0.2");
        assert_eq!(shares(&scene), [1, 0]);
        assert_eq!(scene.next(), "in 100");
        scene.queue.withdraw(scene.tag("b"), 0);
        assert_eq!(shares(&scene), [0, 0]);
        assert!(scene.queue.is_empty());
    }

    #[test]
    fn what_nobody_asks_any_more_is_not_answered() {
        let mut scene = Scene::new();
        scene.ask_for("a", "10.0.0.1", 0);
        scene.ask_for("a", "10.0.0.1", 1);
        scene.ask_for("b", "10.0.0.1", 1);
        scene.queue.withdraw(scene.tag("a"), 0);
        scene.queue.withdraw(scene.tag("b"), 1);
        scene.queue.withdraw(scene.tag("unheard of"), 1);
        assert_eq!(scene.next(), "a");
        scene.queue.withdraw(scene.tag("a"), 1);
        assert!(!scene.queue.is_empty(), "it is being answered");
        assert_eq!(scene.queue.answered(scene.tag("a"), &scene.users, true, scene.now), [0; 0]);
        assert!(scene.queue.is_empty());
        assert_eq!(scene.queue.clients[0].waiting, 0);
    }

    #[test]
    fn with_another_users_file_it_is_another_question() {
        let mut scene = Scene::new();
        scene.ask("a", "10.0.0.1");
        assert_eq!(scene.next(), "a");
        let old = Arc::clone(&scene.users);
        scene.queue.withdraw(scene.tag("a"), 0);
        scene.users = Scene::new().users;
        scene.ask("a", "10.0.0.1");
        assert_eq!(scene.queue.answered(scene.tag("a"), &old, true, scene.now), [0; 0]);
        assert_eq!(scene.answers("a", false), [0]);
        assert!(scene.queue.is_empty());
    }

    #[test]
    fn who_was_wrong_has_sixteen_places_and_others_share_the_rest() {
        let mut scene = Scene::new();
        scene.is_wrong("10.0.0.1");
        for at in 0..QUESTIONS_PER_CLIENT {
            scene.ask(&format!("a{at}"), "10.0.0.1");
        }
        assert_eq!(scene.ask_for("one more", "10.0.0.1", 0), Asked::ClientFull);
        assert_eq!(scene.ask_for("one more", "::ffff:10.0.0.1", 0), Asked::ClientFull);
        assert_eq!(scene.ask_for("a3", "10.0.0.1", 7), Asked::Waits);
        let left = QUESTIONS_MAX - QUESTIONS_PER_CLIENT;
        for at in 0..left {
            scene.ask(&format!("b{at}"), "10.0.0.2");
        }
        assert_eq!(scene.ask_for("b", "10.0.0.2", 0), Asked::ClientFull);
        // Somebody else finds room, in the place of the last that has most.
        scene.pushes_out("c", "10.0.0.3", &format!("b{}", left - 1));
        assert_eq!(scene.queue.waiting.len(), QUESTIONS_MAX);
        scene.now = scene.now.after(DELAY_MS);
        for name in ["a0", "b0", "c", "a1"] {
            scene.answers(name, true);
        }
    }

    #[test]
    fn a_few_that_ask_much_lock_nobody_out() {
        const MANY: usize = QUESTIONS_MAX / QUESTIONS_PER_CLIENT;
        let mut scene = Scene::new();
        for at in 0..QUESTIONS_MAX {
            scene.ask(&format!("a{at}"), &format!("10.0.0.{}", at % MANY));
        }
        scene.answers("a0", false);
        scene.ask("a0", "10.0.0.0");
        // Who was wrong gives way first, and then each in turn.
        scene.pushes_out("b0", "10.1.0.0", "a0");
        for at in 1..20 {
            scene.pushes_out(&format!("b{at}"), &format!("10.1.0.{at}"), &format!("a{}", QUESTIONS_MAX - at));
        }
        let turns: Vec<String> = (0..MANY + 20).map(|_| scene.next()).collect();
        assert_eq!(turns.iter().filter(|name| name.starts_with('b')).count(), 20);
    }

    #[test]
    fn where_each_has_one_place_who_was_wrong_gives_way() {
        let mut scene = Scene::new();
        scene.is_wrong("10.0.0.1");
        scene.ask("wrong", "10.0.0.1");
        for at in 1..QUESTIONS_MAX {
            // IPv6 clients are told apart by their networks.
            scene.ask(&format!("a{at}"), &format!("2001:db8:0:{at}::1"));
        }
        scene.pushes_out("b", "10.0.0.2", "wrong");
        assert_eq!(scene.ask_for("c", "10.0.0.3", 0), Asked::QueueFull);
        assert_eq!(scene.ask_for("a", "2001:db8:0:9::2", 0), Asked::ClientFull);
        // What is being answered stays.
        assert_eq!(scene.next(), "a1");
        assert_eq!(scene.queue.waiting.len(), QUESTIONS_MAX);
    }

    #[test]
    fn an_ipv6_client_is_its_network() {
        let mut scene = Scene::new();
        scene.is_wrong("2001:db8::1");
        for at in 0..QUESTIONS_PER_CLIENT {
            scene.ask(&format!("a{at}"), &format!("2001:db8::{at}:1"));
        }
        assert_eq!(scene.ask_for("one more", "2001:db8::ffff", 0), Asked::ClientFull);
        scene.ask("one more", "2001:db8:0:1::ffff");
    }

    #[test]
    fn what_is_known_of_clients_is_bounded_and_the_worst_are_kept() {
        let mut scene = Scene::new();
        let address = |at: usize| format!("10.1.{}.{}", at / 256, at % 256);
        for _ in 0..3 {
            scene.ask("bad", "10.0.0.1");
            scene.answers("bad", false);
            scene.now = scene.now.after(1_000);
        }
        for at in 0..5 * CLIENTS_MAX {
            let name = format!("n{at}");
            scene.ask(&name, &address(at));
            scene.answers(&name, false);
        }
        assert_eq!(scene.queue.clients.len(), CLIENTS_MAX);
        scene.ask("bad", "10.0.0.1");
        assert!(scene.queue.clients.iter().any(|client| client.failures(scene.now) == 3));
        // Those that were right need not be known.
        let mut scene = Scene::new();
        for at in 0..100 {
            let name = format!("n{at}");
            scene.ask(&name, &address(at));
            scene.answers(&name, true);
        }
        assert_eq!(scene.queue.clients.len(), 1);
    }

    /// Whatever happens, every question is answered or withdrawn, in bounded time, and nothing is left.
    #[test]
    fn every_question_has_its_turn() {
        let mut seed = 0x2545_f491_4f6c_dd1du64;
        let mut random = move |below: u64| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed % below
        };
        let mut scene = Scene::new();
        let mut open: Vec<(String, Tick)> = Vec::new();
        for number in 0..20_000 {
            let name = format!("n{number}");
            let client = format!("10.0.0.{}", random(6));
            match random(3) {
                0 if scene.ask_for(&name, &client, 0) == Asked::Waits => open.push((name, scene.now)),
                1 if !open.is_empty() && random(8) == 0 => {
                    let (name, _) = open.swap_remove(random(open.len() as u64) as usize);
                    scene.queue.withdraw(scene.tag(&name), 0);
                }
                _ => match scene.queue.next(scene.now) {
                    Next::Verify(question) => {
                        let tag = question.tag;
                        let at = open.iter().position(|(name, _)| scene.tag(name) == tag).unwrap();
                        let (_, since) = open.swap_remove(at);
                        let longest_ms = QUESTIONS_PER_CLIENT as u64 * (DELAY_MAX_MS + 6 * 50);
                        assert!(scene.now.since(since) <= longest_ms);
                        scene.now = scene.now.after(random(50));
                        scene.queue.answered(tag, &scene.users, random(2) == 0, scene.now);
                    }
                    Next::At(due) => {
                        assert!(due > scene.now && due <= scene.now.after(DELAY_MAX_MS));
                        scene.now = due;
                    }
                    Next::Nothing => assert!(open.is_empty()),
                },
            }
            assert_eq!(scene.queue.is_empty(), open.is_empty());
        }
    }

    #[test]
    fn memory_is_as_counted() {
        assert!(size_of::<Waiting>() + 2 * CREDENTIALS_MAX_BYTES * 3 / 4 + 64 <= QUESTION_BYTES);
    }
}

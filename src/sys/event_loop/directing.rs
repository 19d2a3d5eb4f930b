//! What the main thread wants: new listeners, new settings, a drain, the end.

use super::EventLoop;
use crate::proto::session::Session;
use crate::sys::shared::{LoopSettings, Message, Phase};
use mio::net::TcpListener;

impl EventLoop {
    pub(super) fn read_mail(&mut self) {
        for message in self.mailbox.take() {
            match message {
                Message::Listen(socket) => self.add_listener(socket),
                Message::ReopenLog => self.access_log.reopen(),
                Message::Names(config) => self.names.reconfigure(*config),
                Message::Login { tag, users, judged } => self.on_judged(tag, &users, judged),
                Message::GiveWay(asked) => self.pleas.push(asked),
                Message::Settings(settings) => self.follow(*settings),
            }
        }
    }

    fn follow(&mut self, settings: LoopSettings) {
        let LoopSettings { policy, buffer_bytes, sources, names, access_log, open, close } = settings;
        self.upstreams.start_over(policy.timeouts.keepalive_ms);
        let old = std::mem::replace(&mut self.policy, policy);
        for (_, entry) in self.sessions.iter_mut() {
            entry.session.on_policy(self.now, &self.policy);
        }
        self.ask_anew(old.users.as_ref());
        self.pool.set_ceiling(buffer_bytes);
        self.sources = sources;
        if let Some(config) = names {
            self.names.reconfigure(config);
        }
        self.names.flush();
        if let Some(new) = access_log {
            self.access_log.replace(new);
        }
        // Before the new ones are here: one of them may have the address of an old one.
        for (_, listener) in &mut self.listeners {
            let is_removed = |address| close.contains(&address);
            if listener.socket.local_addr().is_ok_and(is_removed) {
                listener.leave(self.now);
            }
        }
        for socket in open {
            self.add_listener(socket);
        }
    }

    fn add_listener(&mut self, socket: TcpListener) {
        match self.listen(socket) {
            // A message that the drain has overtaken.
            Ok(key) if self.phase != Phase::Running => self.listeners[key].leave(self.now),
            Ok(_) => {}
            Err(error) => log::warn!("cannot watch a listener: {error}"),
        }
    }

    pub(super) fn follow_phase(&mut self) {
        self.phase = self.shared.phase();
        if self.phase == Phase::Draining && self.grace_over.is_none() {
            self.grace_over = Some(self.now.after(self.policy.timeouts.grace_ms));
            for (_, listener) in &mut self.listeners {
                listener.leave(self.now);
            }
            self.upstreams.close_idle();
            let keys: Vec<usize> = self.sessions.iter().map(|(key, _)| key).collect();
            for key in keys {
                if let Some(entry) = self.sessions.get_mut(key) {
                    entry.session.on_drain(self.now);
                    self.settle(key);
                }
            }
        }
    }

    pub(super) fn is_drained(&self) -> bool {
        match self.phase {
            Phase::Running => false,
            Phase::Draining => self.listeners.is_empty() && self.held.is_empty() && self.sessions.is_empty(),
            Phase::Quitting => true,
        }
    }

    /// Tells those who have no answer yet why, closes everything, and writes the last access lines.
    pub(super) fn quit(&mut self) {
        self.shared.dismiss(&self.mailbox);
        self.answer_last_pleas();
        self.refuse_held();
        for tell in [Session::on_grace_over, |session: &mut Session, _, _: &_| session.on_quit()] {
            let keys: Vec<usize> = self.sessions.iter().map(|(key, _)| key).collect();
            for key in keys {
                if let Some(entry) = self.sessions.get_mut(key) {
                    tell(&mut entry.session, self.now, &self.policy);
                    self.queue(key);
                }
            }
            for _ in 0..self.run_queue.len() {
                self.run_next();
            }
            self.free_ended();
        }
        self.access_log.finish();
    }
}

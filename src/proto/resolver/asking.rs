//! One server is asked: what goes out to it, and what its messages mean for the questions of a lookup.

use super::{Action, Exchange, Ids, Resolver};
use crate::proto::dns::{self, Edns, Reading};
use crate::proto::lookup::{FIRST_TCP, Fault, Lookup, Phase, QTYPES, Question, UDP};
use crate::proto::tick::Tick;

/// Answers over TCP that are under way at once, each of up to 16 KiB: what servers can make a loop hold is bounded.
pub const MAX_TCP: usize = 8;

impl Resolver {
    /// Asks the next server what is still unanswered.
    pub(super) fn start_try(&mut self, at: usize, now: Tick, ids: Ids<'_>) {
        let Some(lookup) = self.lookups.get_mut(at) else { return };
        let server = lookup.next_server();
        let Some(asked) = self.servers.get(server) else { return };
        let Some(name) = lookup.names.get(lookup.name_index) else { return };
        let mut messages = Vec::with_capacity(QTYPES.len());
        for (question, qtype) in lookup.questions.iter_mut().zip(QTYPES) {
            if question.is_open() {
                let id = ids();
                messages.push(dns::encode_query(id, name, qtype, asked.edns));
                *question = Question::OverUdp { id, edns: asked.edns };
            }
        }
        let wait_ms = self.servers.wait_ms(server, lookup.terms.try_ms);
        lookup.phase = Phase::Trying { server, started: now };
        lookup.tries += 1;
        let exchange = Exchange::new(at, UDP);
        let server = asked.address;
        self.open(exchange, Action::OpenUdp { exchange, server, messages });
        self.arm(at, now.after(wait_ms));
    }

    /// What a server's message means for one question.
    pub(super) fn on_reading(&mut self, at: usize, index: usize, reading: Reading, now: Tick, ids: Ids<'_>) {
        let Some(lookup) = self.lookups.get_mut(at) else { return };
        let Phase::Trying { server, .. } = lookup.phase else { return };
        let Some(question) = lookup.questions.get_mut(index) else { return };
        self.servers.heard_from(server, now);
        let Reading::Answer(answer) = reading else {
            *question = Question::Failed;
            lookup.note(Fault::Broken);
            return;
        };
        let over_udp = question.udp_edns();
        if let (true, Some(edns)) = (answer.truncated, over_udp) {
            self.ask_over_tcp(at, index, edns, now, ids);
            return;
        }
        match answer.rcode {
            // Cut short over TCP as well: nothing better is to be had from this server.
            _ if answer.truncated => {
                *question = Question::Failed;
                lookup.note(Fault::Broken);
            }
            dns::RCODE_FORMERR | dns::RCODE_NOTIMP if over_udp == Some(Edns::Offered) => {
                self.servers.omit_edns(server);
                self.ask_without_edns(at, index, ids);
            }
            rcode @ (dns::RCODE_NOERROR | dns::RCODE_NXDOMAIN) => {
                self.servers.works(server);
                lookup.heard = true;
                let found = rcode == dns::RCODE_NOERROR && !answer.addresses.is_empty();
                *question = if found { Question::Found(answer.addresses) } else { Question::Empty { rcode } };
                self.keep(at, index, answer.ttl_s, now);
            }
            // SERVFAIL is about the name, as a rule: one broken zone does not put the server behind the others.
            rcode => {
                *question = Question::Failed;
                lookup.note(Fault::Rcode(rcode));
                if rcode == dns::RCODE_REFUSED {
                    self.servers.avoid(server, now);
                }
            }
        }
    }

    fn ask_over_tcp(&mut self, at: usize, index: usize, edns: Edns, now: Tick, ids: Ids<'_>) {
        let over_tcp =
            |(_, lookup): (usize, &Lookup)| lookup.open.iter().skip(FIRST_TCP).filter(|open| **open).count();
        if self.lookups.iter().map(over_tcp).sum::<usize>() >= MAX_TCP {
            if let Some(lookup) = self.lookups.get_mut(at) {
                if let Some(question) = lookup.questions.get_mut(index) {
                    *question = Question::Failed;
                }
                lookup.note(Fault::Busy);
            }
            return;
        }
        let Some(lookup) = self.lookups.get_mut(at) else { return };
        let Phase::Trying { server, .. } = lookup.phase else { return };
        let wait_ms = self.servers.wait_ms(server, lookup.terms.try_ms);
        let Some(server) = self.servers.get(server) else { return };
        let Some(name) = lookup.names.get(lookup.name_index) else { return };
        let (Some(question), Some(&qtype)) = (lookup.questions.get_mut(index), QTYPES.get(index)) else {
            return;
        };
        let id = ids();
        *question = Question::OverTcp { id };
        let message = dns::encode_query(id, name, qtype, edns);
        let exchange = Exchange::new(at, FIRST_TCP + index);
        self.open(exchange, Action::OpenTcp { exchange, server: server.address, message });
        self.arm(at, now.after(wait_ms));
    }

    /// Again on the same socket; the time of the try runs on.
    fn ask_without_edns(&mut self, at: usize, index: usize, ids: Ids<'_>) {
        let Some(lookup) = self.lookups.get_mut(at) else { return };
        let Some(name) = lookup.names.get(lookup.name_index) else { return };
        let (Some(question), Some(&qtype)) = (lookup.questions.get_mut(index), QTYPES.get(index)) else {
            return;
        };
        let id = ids();
        *question = Question::OverUdp { id, edns: Edns::Omitted };
        let message = dns::encode_query(id, name, qtype, Edns::Omitted);
        self.actions.push_back(Action::SendUdp { exchange: Exchange::new(at, UDP), message });
    }
}

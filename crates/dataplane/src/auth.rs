//! Credentials: Valkey judges them, on a connection that is made for it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use command::{CommandId, CommandTable};
use resp::Protocol;
use session::{
    User,
    local::{self, AuthRequest},
};
use upstream::{CloseReason, Credentials, HandshakeError};

use crate::{
    action::Action,
    channel::{Lane, Profile, Purpose},
    client::{PendingAuth, State},
    core::Core,
    host::{ErrorKind, Host, Planted},
    plane::Dataplane,
    settings::Unauthenticated,
    slots::Key,
};

/// To credentials that are not those of the configuration, in Valkey's words.
const WRONGPASS: &str = "WRONGPASS invalid username-password pair or user is disabled.";

/// When the cluster refuses the user that a client's user is mapped to.
const NOT_ITS_FAULT: &str = "ERR KEYWAY.UPSTREAM_AUTH the cluster refuses the user that this one \
    is mapped to: tell whoever runs Keyway";

/// When a user has as many clients as it may have.
const USER_FULL: &str =
    "ERR KEYWAY.TOO_MANY_CLIENTS this user has as many connections as one may have";

/// Connections at a time that are made to hear Valkey's verdict: whoever guesses passwords must not
/// take the nodes' attention.
const VERDICTS_MAX: usize = 16;
/// How long Valkey's yes is believed for other clients with the same credentials.
const BELIEVED: Duration = Duration::from_secs(30);

impl<H: Host> Core<H> {
    /// As whom the commands of a user run that has not said anything yet.
    pub(crate) fn initial_identity(&mut self, user: &User) -> Key {
        match user {
            User::Default => self.identities.nobody,
            User::Service => self.identities.service,
            User::Named(name) => match self.settings.users.get(name) {
                Some(known) => self.identities.find(&known.runs_as),
                None => self.identities.nobody,
            },
        }
    }

    pub(crate) fn initial_user(&self) -> User {
        match self.settings.unauthenticated {
            Unauthenticated::Default => User::Default,
            Unauthenticated::Service => User::Service,
        }
    }

    /// The client is somebody else from now on.
    pub(crate) fn change_identity(&mut self, client: &mut State, to: Key) {
        if self.host.has_planted(Planted::StaysWho) {
            return;
        }
        self.leave_identity(client.identity);
        client.unguarded = None;
        client.uninformed = false;
        client.identity = to;
        if let Some(identity) = self.identities.get_mut(to) {
            identity.clients += 1;
        }
    }

    pub(crate) fn leave_identity(&mut self, key: Key) {
        if let Some(identity) = self.identities.get_mut(key) {
            identity.clients = identity.clients.saturating_sub(1);
        }
    }

    /// Has credentials judged. Until then nothing more is taken from the client.
    pub(crate) fn authenticate(
        &mut self,
        (client, key): (&mut State, Key),
        command: CommandId,
        request: AuthRequest,
        table: &CommandTable,
        now: Instant,
    ) {
        let place = client
            .session
            .order
            .reserve_local(Some(command), request.silent, now);
        let username: Arc<[u8]> = request.username.as_deref().unwrap_or(b"default").into();
        let said = Credentials {
            username: Arc::clone(&username),
            password: request.password.into(),
        };
        let mapped = self.settings.users.get(&username);
        let runs_as = match mapped {
            None => Some(&said),
            Some(user) => Some(&user.runs_as).filter(|_| {
                let password = user.password.as_deref();
                password.is_some_and(|password| self.identities.same(password, &said.password))
            }),
        };
        let Some(runs_as) = runs_as else {
            self.host.error(ErrorKind::Auth);
            self.host
                .credentials_refused(client.session.peer, &username, WRONGPASS);
            resp::write::error(&mut self.scratch, WRONGPASS);
            self.complete_here(client, place, now);
            return;
        };
        let identity = self.identities.find(runs_as);
        let pending = PendingAuth {
            mapped: mapped.is_some(),
            place,
            then: request.then,
            identity,
            username,
            since: now,
        };
        client.auth = Some(pending);
        let Some(known) = self.identities.get_mut(identity) else {
            return;
        };
        if known.accepted_until.is_some_and(|until| until > now) {
            self.accept(client, table, now);
        } else {
            known.waiters.push(key);
            self.check(identity, now);
        }
    }

    /// Opens the connection that will tell, unless there is one.
    pub(crate) fn check(&mut self, key: Key, now: Instant) {
        let checking = self
            .identities
            .get_mut(key)
            .and_then(|identity| identity.checking);
        if checking.is_some() || self.verdicts >= VERDICTS_MAX {
            return; // the next tick asks again
        }
        let primary = self.view.topology.as_deref().and_then(|topology| {
            let count = topology.shards().len();
            let turn = usize::try_from(self.epoch)
                .unwrap_or_default()
                .checked_rem(count)?;
            topology
                .primaries()
                .nth(turn)
                .map(|node| (node.addr.clone(), node.id))
        });
        let Some((addr, id)) = primary else {
            self.refresh();
            return;
        };
        self.epoch += 1; // another attempt takes another node
        let profile = Profile {
            identity: key,
            protocol: Protocol::Resp2,
            database: 0,
            lane: Lane::Fast,
            replica: false,
        };
        let channel = self.open(&addr, Some(id), profile, Purpose::Verdict, now);
        self.verdicts += 1;
        if let Some(identity) = self.identities.get_mut(key) {
            identity.checking = Some(channel);
        }
    }

    /// Valkey has accepted a client's credentials.
    pub(crate) fn accept(&mut self, client: &mut State, table: &CommandTable, now: Instant) {
        if !self.seat(client) {
            self.reject(client, USER_FULL, now);
            return;
        }
        let Some(auth) = client.auth.take() else {
            return;
        };
        let user = User::Named(Arc::clone(&auth.username));
        let mut out = std::mem::take(&mut self.scratch);
        self.with_context(client, table, now, |session, context| {
            local::authenticated(session, &auth.then, user, context, &mut out);
        });
        self.scratch = out;
        self.change_identity(client, auth.identity);
        self.complete_here(client, auth.place, now);
    }

    /// Gives a client whose credentials are good a place among its user's; false when all are taken.
    fn seat(&mut self, client: &mut State) -> bool {
        let Some(auth) = &client.auth else {
            return true;
        };
        let has = client.seat.as_ref();
        if has.is_some_and(|seat| seat.is_of(&auth.username)) {
            return true;
        }
        match self.settings.seats.take(&auth.username) {
            Some(seat) => {
                client.seat = Some(seat);
                true
            }
            None => false,
        }
    }

    /// Valkey has refused them, or could not be asked; the error line without `-` and CRLF.
    pub(crate) fn reject(&mut self, client: &mut State, text: &str, now: Instant) {
        let Some(auth) = client.auth.take() else {
            return;
        };
        if !text.starts_with("ERR KEYWAY.") {
            self.host
                .credentials_refused(client.session.peer, &auth.username, text);
        }
        // The client has said the right words: it cannot mend this.
        let text = if auth.mapped && text.starts_with("WRONGPASS") {
            NOT_ITS_FAULT
        } else {
            text
        };
        self.host.error(ErrorKind::Auth);
        resp::write::error(&mut self.scratch, text.as_bytes());
        self.complete_here(client, auth.place, now);
    }
}

impl<H: Host> Dataplane<H> {
    /// The connection that was to tell about an identity has been set up, or has ended.
    pub(crate) fn verdict(&mut self, channel: Key, ended: Option<&CloseReason>, now: Instant) {
        let Some(of) = self
            .core
            .channels
            .get(channel)
            .map(|channel| channel.profile.identity)
        else {
            return;
        };
        self.core.retire(channel);
        self.core.verdicts = self.core.verdicts.saturating_sub(1);
        let Some(identity) = self.core.identities.get_mut(of) else {
            return;
        };
        identity.checking = None;
        let refused = match ended {
            None => {
                identity.accepted_until = Some(now + BELIEVED);
                None
            }
            Some(CloseReason::Handshake(HandshakeError::Refused(text))) => Some(text.clone()),
            Some(_) => return, // the next tick asks another node
        };
        for key in std::mem::take(&mut identity.waiters) {
            let Some(client) = self.clients.get_mut(key) else {
                continue;
            };
            match &refused {
                None => self.core.accept(&mut client.state, &self.table, now),
                Some(text) => self.core.reject(&mut client.state, text, now),
            }
            self.core.wake(&mut client.state, key);
        }
        if self.core.identities.forget_unused(of, now) {
            debug_assert!(refused.is_some(), "forgot who was just accepted");
        }
    }

    /// Asks again for identities whose question got lost, and gives up on those who waited too
    /// long.
    pub(crate) fn tick_auth(&mut self, now: Instant) {
        let deadline = self.core.settings.limits.deadline;
        for key in self.core.identities.keys() {
            let Some(identity) = self.core.identities.get_mut(key) else {
                continue;
            };
            if identity.waiters.is_empty() {
                continue;
            }
            let waiters = std::mem::take(&mut identity.waiters);
            let mut left = smallvec::SmallVec::new();
            for waiter in waiters {
                let Some(client) = self.clients.get_mut(waiter) else {
                    continue;
                };
                let since = client.state.auth.as_ref().map(|auth| auth.since);
                if since.is_some_and(|since| since + deadline > now) {
                    left.push(waiter);
                } else {
                    let text = "ERR KEYWAY.UNAVAILABLE no node could check the credentials in time";
                    self.core.reject(&mut client.state, text, now);
                    self.core.wake(&mut client.state, waiter);
                }
            }
            let waits = !left.is_empty();
            if let Some(identity) = self.core.identities.get_mut(key) {
                identity.waiters = left;
            }
            if waits {
                self.core.check(key, now);
            }
        }
    }
}

impl<H: Host> Core<H> {
    /// Tells the shell to look after a client.
    pub(crate) fn wake(&mut self, client: &mut State, key: Key) {
        if !client.woken {
            client.woken = true;
            self.actions.push(Action::WakeClient(key));
        }
    }
}

//! What becomes of `--buffer-memory`: so much for each session, for each loop and for users, and the rest for rings.

use super::*;

impl Config {
    /// What is left of `--buffer-memory` for the rings of one loop.
    #[must_use]
    pub fn ring_bytes_per_loop(&self) -> u64 {
        let sessions_bytes = self.max_sessions as u64 * SESSION_BYTES;
        let other_bytes = sessions_bytes + self.desk_bytes();
        let bytes = self.buffer_memory_bytes.saturating_sub(other_bytes) / self.loops as u64;
        bytes.saturating_sub(self.bytes_per_loop())
    }

    /// What one loop may remember of names.
    #[must_use]
    pub fn cache_bytes_per_loop(&self) -> u64 {
        MAX_CACHE_BYTES.min(self.buffer_memory_bytes / 32 / self.loops as u64)
    }

    /// How many upstream connections one loop may keep idle.
    #[must_use]
    pub fn idle_connections_per_loop(&self) -> usize {
        idle_connections(self.buffer_memory_bytes, self.loops as u64) as usize
    }

    /// How many of them may lead to one origin.
    #[must_use]
    pub fn idle_connections_per_origin(&self) -> usize {
        self.idle_connections_per_loop() / 2
    }

    /// How many verdicts on credentials one loop remembers, once there are users.
    #[must_use]
    pub fn logins_per_loop(&self) -> usize {
        logins(self.buffer_memory_bytes, self.loops as u64) as usize
    }

    /// What one loop takes besides its rings.
    fn bytes_per_loop(&self) -> u64 {
        let idle_bytes = (self.idle_connections_per_loop() * IDLE_BYTES) as u64;
        let logins_bytes = self.users.as_ref().map_or(0, |_| self.logins_per_loop() * LOGIN_BYTES) as u64;
        self.cache_bytes_per_loop() + idle_bytes + logins_bytes + LOOP_BYTES
    }

    /// What the verifying of credentials takes, for all loops.
    fn desk_bytes(&self) -> u64 {
        self.users.as_ref().map_or(0, |_| LOGIN_DESK_BYTES)
    }

    /// Limits that only fit together if the memory suffices for both.
    ///
    /// # Errors
    /// [`UsageError::TooLittleMemory`].
    pub fn check_memory(&self) -> Result<(), UsageError> {
        let rings_bytes = MIN_RINGS_PER_LOOP * RING_BYTES as u64;
        if self.ring_bytes_per_loop() >= rings_bytes {
            return Ok(());
        }
        let loop_bytes = rings_bytes + self.bytes_per_loop();
        let sessions_bytes = self.max_sessions as u64 * SESSION_BYTES;
        let needed = sessions_bytes + self.desk_bytes() + loop_bytes * self.loops as u64;
        Err(UsageError::TooLittleMemory { needed, sessions: self.max_sessions, loops: self.loops })
    }
}

/// `--buffer-memory`. What follows from it leaves room for users, whether there are any or not: a reload may bring them.
#[derive(Clone, Copy)]
pub(super) struct Memory(pub(super) u64);

impl Memory {
    /// As many sessions as it is good for, so that one loop can serve them.
    pub(super) fn sessions(self) -> usize {
        let sessions = (self.0 / BUFFER_BYTES_PER_SESSION).min(self.left_for(1) / SESSION_BYTES);
        usize::try_from(sessions).unwrap_or(MAX_SESSIONS).min(MAX_SESSIONS)
    }

    /// One loop for each core; fewer where the memory would not suffice for so many.
    pub(super) fn one_per_core(self, max_sessions: usize) -> usize {
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        let spare_bytes = self.left_for(0).saturating_sub(max_sessions as u64 * SESSION_BYTES);
        let affordable = spare_bytes / self.loop_bytes();
        cores.min(MAX_LOOPS).min(usize::try_from(affordable).unwrap_or(MAX_LOOPS)).max(1)
    }

    /// What is not for the loops, or for the verifying of credentials.
    fn left_for(self, loops: u64) -> u64 {
        self.0.saturating_sub(LOGIN_DESK_BYTES + loops * self.loop_bytes())
    }

    /// What a single loop needs.
    fn loop_bytes(self) -> u64 {
        let cache_bytes = MAX_CACHE_BYTES.min(self.0 / 32);
        let idle_bytes = idle_connections(self.0, 1) * IDLE_BYTES as u64;
        let logins_bytes = logins(self.0, 1) * LOGIN_BYTES as u64;
        MIN_RINGS_PER_LOOP * RING_BYTES as u64 + LOOP_BYTES + cache_bytes + idle_bytes + logins_bytes
    }
}

/// A 64th of the memory, as far as that makes sense.
fn idle_connections(buffer_memory_bytes: u64, loops: u64) -> u64 {
    let (fewest, most) = IDLE_CONNECTIONS;
    (buffer_memory_bytes / 64 / loops / IDLE_BYTES as u64).clamp(fewest, most)
}

/// A 128th of the memory, as far as that makes sense.
fn logins(buffer_memory_bytes: u64, loops: u64) -> u64 {
    let (fewest, most) = LOGINS;
    (buffer_memory_bytes / 128 / loops / LOGIN_BYTES as u64).clamp(fewest, most)
}

//! What a seed decides before anything runs: how large the cluster is and how it is tuned.

use std::time::Duration;

use tidemark_protocol::NodeId;

/// Ids of replicas start behind those of voters.
const REPLICAS_FROM: u64 = 0x100;

/// Who there is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    /// 1, 3 or 5.
    pub voters: u64,
    /// Replicas, each in a region of its own.
    pub replicas: u64,
}

/// What a node is told beside who it is. Small bounds lead to rare paths often.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tuning {
    /// Growth of the log after which files are made durable and the log is cut.
    pub persist_every_bytes: u64,
    /// Entries of the log kept for voters that were away.
    pub log_entries_kept: u64,
    /// Bytes of the log kept for them.
    pub log_bytes_kept: u64,
    /// Bytes kept in memory for replicas that are a little behind.
    pub recent_bytes_max: usize,
    /// Time after which an idle database closes its files.
    pub idle_wait: Duration,
    /// Longest flush of a healthy disk.
    pub flush_max: Duration,
    /// Longest wait of a job for a thread.
    pub pause_max: Duration,
    /// Longest way between voters.
    pub near_max: Duration,
    /// Way to and from replicas.
    pub far: Duration,
    /// What a client rests between two requests, on average.
    pub rest: Duration,
}

impl Layout {
    /// Of a seed: mostly three voters.
    pub fn drawn(random: &mut fastrand::Rng) -> Self {
        let voters = match random.u32(..20) {
            0..2 => 1,
            2..5 => 5,
            _ => 3,
        };
        Self {
            voters,
            replicas: random.u64(1..=2),
        }
    }

    /// The voters and their hosts.
    pub fn voters(self) -> impl Iterator<Item = (NodeId, String)> {
        (1..=self.voters).map(|id| (NodeId(id), format!("voter-{id}")))
    }

    /// The replicas and their hosts.
    pub fn replicas(self) -> impl Iterator<Item = (NodeId, String)> {
        (1..=self.replicas).map(|id| (NodeId(REPLICAS_FROM + id), format!("replica-{id}")))
    }

    /// The hosts of all of them.
    pub fn hosts(self) -> Vec<String> {
        self.voters()
            .chain(self.replicas())
            .map(|(_, name)| name)
            .collect()
    }

    /// Voters that may be struck at a time while a majority is left.
    pub fn minority(self) -> usize {
        usize::try_from((self.voters - 1) / 2).expect("a handful")
    }
}

impl Tuning {
    /// Of a seed.
    pub fn drawn(random: &mut fastrand::Rng) -> Self {
        let mut one_of = |choice: &[u64]| choice[random.usize(..choice.len())];
        Self {
            persist_every_bytes: one_of(&[64 << 10, 512 << 10, 256 << 20]),
            log_entries_kept: one_of(&[8, 200, 16 << 10]),
            log_bytes_kept: one_of(&[1 << 20, 1 << 30]),
            recent_bytes_max: usize::try_from(one_of(&[64 << 10, 64 << 20])).expect("fits"),
            idle_wait: Duration::from_secs(one_of(&[1, 30])),
            flush_max: Duration::from_micros(one_of(&[0, 2_000, 8_000])),
            pause_max: Duration::from_micros(one_of(&[0, 2_000, 10_000])),
            near_max: Duration::from_millis(one_of(&[5, 10, 40])),
            far: Duration::from_millis(one_of(&[10, 50, 150])),
            rest: Duration::from_millis(one_of(&[200, 400])),
        }
    }
}

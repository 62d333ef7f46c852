//! The checks, by name: what can be left out of a judge.

use super::{Guarantee, Violation};

macro_rules! checks {
    ($($(#[$doc:meta])* $check:ident,)*) => {
        /// One check of the judge: that a promise was kept.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum Check {
            $($(#[$doc])* $check,)*
        }

        impl Check {
            /// All of them.
            pub const ALL: [Self; [$(Self::$check),*].len()] = [$(Self::$check),*];
        }
    };
}

checks! {
    /// What was acknowledged is there.
    Lost,
    /// Nothing is there twice.
    Twice,
    /// Nothing is there that nobody wrote.
    Phantom,
    /// Nothing is there whose writer was told that nothing had happened.
    Refused,
    /// What was acknowledged is where it was said to be.
    Moved,
    /// Every place has a row.
    Hole,
    /// Places follow the order in time.
    Order,
    /// Positions fit the rows of their states.
    Count,
    /// Bookmarks sort as states do.
    Age,
    /// One age has one content.
    Fork,
    /// What was seen is there.
    Uncommitted,
    /// What was seen has no gap.
    Gap,
    /// What was seen had been sent.
    Foreseen,
    /// A read is not from before the state it asked for.
    Behind,
    /// A read that asked for everything has what was acknowledged.
    Stale,
    /// A read that asked for everything has what was shown.
    Backwards,
    /// See [`Guarantee::ReadYourWrites`].
    ReadYourWrites,
    /// See [`Guarantee::MonotonicReads`].
    MonotonicReads,
    /// See [`Guarantee::MonotonicWrites`].
    MonotonicWrites,
    /// See [`Guarantee::WritesFollowReads`].
    WritesFollowReads,
}

impl Violation {
    /// The check that finds it.
    pub fn check(&self) -> Check {
        match self {
            Self::Lost { .. } => Check::Lost,
            Self::Twice { .. } => Check::Twice,
            Self::Phantom { .. } => Check::Phantom,
            Self::Refused { .. } => Check::Refused,
            Self::Moved { .. } => Check::Moved,
            Self::Hole { .. } => Check::Hole,
            Self::Order { .. } => Check::Order,
            Self::Count { .. } => Check::Count,
            Self::Age { .. } => Check::Age,
            Self::Fork { .. } => Check::Fork,
            Self::Uncommitted { .. } => Check::Uncommitted,
            Self::Gap { .. } => Check::Gap,
            Self::Foreseen { .. } => Check::Foreseen,
            Self::Behind { .. } => Check::Behind,
            Self::Stale { .. } => Check::Stale,
            Self::Backwards { .. } => Check::Backwards,
            Self::Session { guarantee, .. } => match guarantee {
                Guarantee::ReadYourWrites => Check::ReadYourWrites,
                Guarantee::MonotonicReads => Check::MonotonicReads,
                Guarantee::MonotonicWrites => Check::MonotonicWrites,
                Guarantee::WritesFollowReads => Check::WritesFollowReads,
            },
        }
    }
}

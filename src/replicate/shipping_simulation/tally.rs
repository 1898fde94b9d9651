//! What happened how often.

macro_rules! tally {
    ($($(#[$doc:meta])* $field:ident,)*) => {
        /// What happened how often.
        #[derive(Debug, Clone, Copy, Default)]
        pub struct Tally {
            $($(#[$doc])* pub $field: u64,)*
        }

        impl Tally {
            /// Adds another's.
            pub fn add(&mut self, other: &Self) {
                $(self.$field += other.$field;)*
            }
        }
    };
}

tally! {
    /// Commits.
    commits,
    /// Processes started.
    starts,
    /// Processes that died.
    deaths,
    /// Losses of power.
    power_losses,
    /// Processes that released the replica.
    releases,
    /// Processes that others had passed.
    fenced,
    /// Starts that were refused, as another host had the replica.
    refused,
    /// Starts that found their epoch begun.
    taken,
    /// Starts that were refused, as the database was another.
    others,
    /// Restores.
    restores,
    /// Hosts that were restored.
    restored_hosts,
    /// Merged segments.
    merged,
    /// Lines of history.
    lines,
    /// Records of several commits in one.
    coarse,
}

//! What happens how often in a simulation.

/// A `Tally` of these counters, each with what it counts.
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

pub(crate) use tally;

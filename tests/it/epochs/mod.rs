//! One writer per replica: whoever writes, whenever, there is one history.

mod hosts;
mod protocol;

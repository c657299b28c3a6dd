//! Goal: nodes find in Redis what they stored there, in every arrangement of servers; and a Redis that is away, silent or
//! hostile costs misses, never an error and never long. Method: the tier of the program against real servers, which
//! the tests stop, kill, promote and fill with forgeries.

mod changes;
mod deletions;
mod elsewhere;
mod faults;
mod feedback;
mod flights;
mod forgeries;
mod full;
mod killed;
mod leases;
mod node;
mod nodes;
mod round_trips;
pub(crate) mod servers;
pub(crate) mod topologies;
mod trimmed;
pub(crate) mod two_nodes;
mod waiting_writes;

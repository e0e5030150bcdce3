//! The engine: it owns every loop, task, retry, metric and shutdown; adapters read, write, confirm and translate.
//!
//! ```text
//! database -> Source -> capture ------------> Bus -> sequence -> (resolve) -> apply -> Sink -> database
//!                         ^                                         |           |
//!             TableReader +-- snapshot (chunks between two          |           +-> retry (parked keys)
//!                             positions of the stream)              +-> ledger
//! ```
//!
//! # Invariants
//!
//! The numbers are those of the design; code that upholds one cites it.
//!
//! 1. **Confirm.** A source position is confirmed only after all before it is durable on the bus, at commit boundaries,
//!    never backwards. The stored position names the bus offset that it rests on: a log that ends before it is a GAP.
//! 2. **Effect.** Rows, parked rows and marker commit in one transaction. Before it, their records are durable on the
//!    bus, and what is parked for a retry is so in the retry queue. The marker moves by compare-and-set from what this
//!    sink read, else the sink stops.
//! 3. **Once.** At-least-once transport, exactly-once effect. A record names its origin's previous position: what was
//!    taken before is a duplicate, a hole is a GAP.
//! 4. **Echo.** What we wrote is never captured as a change (two-way pipelines): a Marker record stands for it. A start
//!    proves it before anything is written.
//! 5. **Order.** Writes of one key reach one target in bus order, through retry and dead letter too.
//! 6. **Determinism.** A decision depends on bus records alone, the configuration being one of them (two-way pipelines).
//! 7. **Fidelity.** A value arrives exactly or is refused with its column and reason.
//! 8. **Gap.** A lost, recreated or foreign position is a named GAP state with a repair, never a silent resume.
//! 9. **Bounds.** Memory is bounded everywhere; a full queue slows the source; a large transaction streams or spills.
//! 10. **Isolation.** One bad row parks its key; one dead target stops only its applier.
//! 11. **Secrecy.** Row values and secrets never reach logs, errors or metrics.

pub mod apply;
pub mod assemble;
pub mod breaker;
pub mod capture;
pub mod clock;
pub mod clocks;
pub mod decide;
pub mod envelope;
pub mod failure;
pub mod letters;
pub mod metrics;
pub mod pace;
pub mod pipeline;
pub mod preflight;
pub mod projected;
pub mod publish;
pub mod resolve;
pub mod retry;
pub mod seeding;
pub mod sequence;
pub mod snapshot;
pub mod status;
pub mod two_way;
pub mod verify;
pub mod version;
pub mod what_if;
pub mod window;

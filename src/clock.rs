//! The clock, and the precision of times.

use time::{OffsetDateTime, UtcOffset};

/// Returns the current time, as the databases store it.
pub(crate) fn now() -> OffsetDateTime {
    to_microseconds(OffsetDateTime::now_utc())
}

/// Converts a time to UTC and to the microsecond, the precision of both databases.
pub(crate) fn to_microseconds(time: OffsetDateTime) -> OffsetDateTime {
    // A time that UTC cannot express stays as it is: it is beyond every row.
    let time = time.checked_to_offset(UtcOffset::UTC).unwrap_or(time);
    time.replace_nanosecond(time.microsecond() * 1_000).unwrap_or(time)
}

//! Throws away what is dead: expired keys, and rows that belong to no key any more.

use redb::ReadableTable;

use super::{fault::Fault, tables::WriteTables};

/// Rows thrown away in one pass: a few milliseconds, in which nobody else writes.
const ROWS_A_PASS: usize = 2000;

/// One pass at `now`. True if there is more to do at once.
pub(super) fn pass(tables: &mut WriteTables<'_>, now: i64) -> Result<bool, Fault> {
    let mut left = ROWS_A_PASS;
    let dead: Vec<String> = {
        let range = tables.expiry.range(..(now.saturating_add(1), ""))?;
        range
            .take(left)
            .map(|row| row.map(|(place, _)| place.value().1.to_owned()))
            .collect::<Result<_, _>>()?
    };
    left -= dead.len();
    for key in &dead {
        tables.remove(key)?;
    }
    while left > 0 {
        let Some(id) = tables.garbage.first()?.map(|(id, _)| id.value()) else { return Ok(false) };
        left = rows(tables, id, left)?;
    }
    Ok(true)
}

/// Takes away up to `left` rows of a dead id, and the id with the last; returns what is left to do.
fn rows(tables: &mut WriteTables<'_>, id: u64, mut left: usize) -> Result<usize, Fault> {
    tables.changed = true;
    for taken in
        tables.rows.extract_from_if((id, &[][..])..(id + 1, &[][..]), |_, _| true)?.take(left)
    {
        taken?;
        left -= 1;
    }
    for taken in tables
        .order
        .extract_from_if((id, i64::MIN, "")..(id + 1, i64::MIN, ""), |_, ()| true)?
        .take(left)
    {
        taken?;
        left -= 1;
    }
    if left > 0 {
        tables.garbage.remove(id)?;
    }
    Ok(left)
}

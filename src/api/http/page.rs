//! Pagination of lists.

use serde::Deserialize;
use utoipa::IntoParams;

use super::error::{ApiError, Code};
use crate::store::{MAX_PAGE, StoreError};

/// Returns the number of rows of a page, by default 100.
pub(crate) fn page(limit: Option<u32>) -> Result<u32, ApiError> {
    let limit = limit.unwrap_or(100);
    if (1..=MAX_PAGE).contains(&limit) {
        return Ok(limit);
    }
    Err(ApiError::new(Code::MalformedRequest, format!("limit is {limit}: send 1 to {MAX_PAGE}")))
}

/// Reads one page of a list with `read`, which takes the number of rows. Returns its entries, and
/// the cursor of the next page if there is one.
pub(crate) async fn page_of<T, E: From<T>, K>(
    limit: Option<u32>,
    read: impl AsyncFnOnce(u32) -> Result<Vec<T>, StoreError>,
    key: impl Fn(&T) -> K,
) -> Result<(Vec<E>, Option<K>), ApiError> {
    let limit = page(limit)?;
    let (rows, next) = cut(read(limit + 1).await?, limit, key);
    Ok((rows.into_iter().map(Into::into).collect(), next))
}

/// Cuts rows, read with one row too many, to a page. Returns the cursor of the next page if there
/// is one.
pub(crate) fn cut<T, K>(
    mut rows: Vec<T>,
    limit: u32,
    key: impl Fn(&T) -> K,
) -> (Vec<T>, Option<K>) {
    let more = rows.len() > limit as usize;
    rows.truncate(limit as usize);
    let next = rows.last().filter(|_| more).map(key);
    (rows, next)
}

/// Selects a page of photos or samples.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct PageQuery {
    /// Number of rows to skip. Default: 0.
    pub(crate) offset: Option<usize>,
    /// Rows per page, 1 to 1000. Default: 100.
    pub(crate) limit: Option<u32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_1_to_1000_rows() {
        assert_eq!(page(None).ok(), Some(100));
        assert_eq!(page(Some(1_000)).ok(), Some(1_000));
        for limit in [0, 1_001] {
            assert_eq!(
                page(Some(limit)).map_err(|error| error.code()),
                Err(Code::MalformedRequest)
            );
        }
    }

    #[test]
    fn the_next_page_begins_after_the_last_row_if_there_is_one_more() {
        assert_eq!(cut(vec![1, 2, 3], 2, |row| *row), (vec![1, 2], Some(2)));
        assert_eq!(cut(vec![1, 2], 2, |row| *row), (vec![1, 2], None));
        assert_eq!(cut(Vec::<u32>::new(), 2, |row| *row), (vec![], None));
    }
}

//! The names of objects, page by page.

use aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output;
use aws_sdk_s3::types::EncodingType;

use super::{ANSWER, Failure, Meaning, S3Store, Verb, decoded};
use crate::store::{Listed, Page};

impl S3Store {
    /// All objects whose names begin with `prefix`, in the order of their names.
    pub(super) async fn list_all(&self, prefix: &str) -> Result<Vec<Listed>, Failure> {
        let (mut found, mut token) = (Vec::new(), None);
        loop {
            let page = self.page(prefix, "", token.clone()).await?;
            let (is_last, next) = (is_last(&page), page.next_continuation_token.clone());
            found.extend(self.keys(page));
            if is_last {
                break;
            }
            if next.is_none() || next == token {
                let reason = "the store's listing does not go on where it ends";
                return Err(Failure::found(Meaning::Permanent, reason));
            }
            token = next;
        }
        found.sort_unstable();
        found.dedup();
        Ok(listed(found))
    }

    /// One page of them: the first ones behind the key `after`. Where the store tells others than these,
    /// all that there are.
    pub(super) async fn list_page(&self, prefix: &str, after: &str) -> Result<Page, Failure> {
        let page = self.page(prefix, after, None).await?;
        let is_last = is_last(&page);
        let found = self.keys(page);
        let is_asked_for = |key: &str| key.starts_with(prefix) && key > after;
        let is_in_order = found.is_sorted_by(|one, next| one.0 < next.0);
        let goes_on = is_last || !found.is_empty();
        if !(is_in_order && goes_on && found.iter().all(|(key, _)| is_asked_for(key))) {
            let mut objects = self.list_all(prefix).await?;
            objects.retain(|object| object.name.to_string().as_str() > after);
            return Ok(Page { objects, next: None });
        }
        let next = found.last().filter(|_| !is_last).map(|(key, _)| key.clone());
        Ok(Page { objects: listed(found), next })
    }

    /// A page: that after the one that told the token, or the first one behind the key `after`.
    async fn page(
        &self,
        prefix: &str,
        after: &str,
        token: Option<String>,
    ) -> Result<ListObjectsV2Output, Failure> {
        // All keys with the prefix are behind what is before it: Garage would tell none of them.
        let after = Some(after).filter(|after| *after >= prefix && !after.is_empty());
        let after = after.filter(|_| token.is_none());
        let asked = self.ask(Verb::List, ANSWER, |client| {
            client
                .list_objects_v2()
                .bucket(&self.address.bucket)
                .prefix(self.address.key(prefix))
                .encoding_type(EncodingType::Url)
                .set_start_after(after.map(|after| self.address.key(after)))
                .set_continuation_token(token)
                .send()
        });
        asked.await
    }

    /// The keys on a page, as they are within the replica, with the sizes of their objects.
    fn keys(&self, page: ListObjectsV2Output) -> Vec<(String, u64)> {
        let objects = page.contents.unwrap_or_default().into_iter();
        let keys = objects.filter_map(|object| {
            let key = decoded(&object.key?).ok()?;
            let name = key.strip_prefix(&self.address.prefix)?;
            Some((name.to_owned(), object.size.map_or(0, i64::cast_unsigned)))
        });
        keys.collect()
    }
}

fn is_last(page: &ListObjectsV2Output) -> bool {
    page.is_truncated != Some(true)
}

/// Those that name objects of a replica.
fn listed(keys: Vec<(String, u64)>) -> Vec<Listed> {
    let parse = |(key, size): (String, u64)| Some(Listed { name: key.parse().ok()?, size });
    keys.into_iter().filter_map(parse).collect()
}

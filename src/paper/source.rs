//! Reads a service over HTTP, as any client does.

use serde::de::DeserializeOwned;

use crate::client::{Client, ClientError};

/// A service to read from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) client: &'a Client,
}

/// A response with its request.
#[derive(Debug)]
pub(super) struct Answered<T> {
    pub(super) of: T,
    /// Path and parameters of the request.
    pub(super) request: String,
}

/// What a service says about a part: its numbers, or why there are none.
#[derive(Debug)]
pub(super) enum Said<T> {
    Answer(Answered<T>),
    Refused(String),
}

impl Source<'_> {
    /// Reads a route; parameters without a value are left out.
    pub(super) async fn get<T: DeserializeOwned>(
        &self,
        parts: &[&str],
        query: &[(&str, Option<&str>)],
    ) -> Result<Answered<T>, ClientError> {
        let query: Vec<(&str, &str)> =
            query.iter().filter_map(|(name, value)| Some((*name, (*value)?))).collect();
        let mut url = self.client.url(parts);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(&query);
        }
        let parameters = url.query().map(|query| format!("?{query}")).unwrap_or_default();
        let request = format!("GET {}{parameters}", url.path());
        let of = self.client.get(parts, &query).await?;
        Ok(Answered { of, request })
    }

    /// Reads a route whose refusal only leaves out a part.
    pub(super) async fn ask<T: DeserializeOwned>(
        &self,
        parts: &[&str],
        query: &[(&str, Option<&str>)],
    ) -> Result<Said<T>, ClientError> {
        match self.get(parts, query).await {
            Ok(answer) => Ok(Said::Answer(answer)),
            Err(ClientError::Problem {
                status: 400 | 404 | 409 | 413 | 414 | 422 | 431,
                detail,
                ..
            }) => Ok(Said::Refused(detail)),
            Err(ClientError::Foreign { status: 413 | 414 | 431, .. }) => {
                let why = "the request is too long for the server: select fewer methods";
                Ok(Said::Refused(why.to_owned()))
            }
            // It takes longer than the deadline of the server, each time.
            Err(ClientError::Silent { status: Some(504), cause, .. }) => Ok(Said::Refused(cause)),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::http::StatusCode;

    use super::*;

    #[tokio::test]
    async fn what_the_service_cannot_answer_leaves_out_a_part() {
        for (status, is_refused) in
            [(504, true), (414, true), (431, true), (500, false), (503, false)]
        {
            let status = StatusCode::from_u16(status).unwrap();
            let router = axum::Router::new()
                .route("/{*path}", axum::routing::any(move || async move { (status, "why") }));
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("http://{}", listener.local_addr().unwrap());
            tokio::spawn(axum::serve(listener, router).into_future());
            let client = Client::new(&url, Duration::ZERO).unwrap();
            let said = Source { client: &client }.ask::<u8>(&["v1", "analysis"], &[]).await;
            let found = matches!(said, Ok(Said::Refused(_)));
            assert_eq!(found, is_refused, "{status}: {said:?}");
        }
    }
}

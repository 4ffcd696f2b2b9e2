//! Who may call a route: every route is added with its scope, so that none can be forgotten.

use std::collections::HashMap;

use axum::{Router, http::Method, routing::MethodRouter};
use tower_http::compression::{
    CompressionLayer,
    predicate::{DefaultPredicate, NotForContentType, Predicate as _},
};
use utoipa::openapi::{
    OpenApi, SecurityRequirement,
    path::{Operation, PathItem},
    security::{Http, HttpAuthScheme, SecurityScheme},
};
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter};

use crate::key::Scope;

/// Names of the two ways to send a key, in the API document.
const SCHEMES: [&str; 2] = ["bearer", "basic"];

/// What a request needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Nothing.
    Open,
    /// Nothing, unless `keys.metrics` is set: then a key with the scope `read`.
    Metrics,
    /// A key with any scope.
    AnyKey,
    /// A key with this scope.
    Scope(Scope),
    /// A key with one of these scopes.
    Either(Scope, Scope),
}

impl Access {
    /// Returns true if a key with these scopes has access.
    pub(crate) fn admits(self, scopes: &[Scope]) -> bool {
        match self {
            Self::Open | Self::AnyKey => true,
            Self::Metrics => scopes.contains(&Scope::Read),
            Self::Scope(scope) => scopes.contains(&scope),
            Self::Either(one, other) => scopes.contains(&one) || scopes.contains(&other),
        }
    }

    /// Returns the scope that a refusal names.
    pub(crate) fn scope(self) -> Option<Scope> {
        match self {
            Self::Open | Self::AnyKey => None,
            Self::Metrics => Some(Scope::Read),
            Self::Scope(scope) | Self::Either(scope, _) => Some(scope),
        }
    }
}

/// What every route needs, by method and template.
#[derive(Clone, Debug, Default)]
pub(crate) struct AccessTable(HashMap<String, Vec<(Method, Access)>>);

impl AccessTable {
    /// Adds a route that the API document does not have.
    pub(crate) fn with(mut self, method: Method, route: &str, access: Access) -> Self {
        self.add(method, route, access);
        self
    }

    fn add(&mut self, method: Method, route: &str, access: Access) {
        self.0.entry(route.to_owned()).or_default().push((method, access));
    }

    /// Returns what a request to the route with this template needs. Unknown routes and methods
    /// need a key, so that their errors tell nothing to others. A route that was not added with its
    /// scope needs the strongest one.
    pub(crate) fn of(&self, method: &Method, route: Option<&str>) -> Access {
        let Some(route) = route else { return Access::AnyKey };
        // The pages of the API document, and their files.
        if route == "/docs" || route.starts_with("/docs/") {
            return Access::AnyKey;
        }
        let Some(methods) = self.0.get(route) else { return Access::Scope(Scope::Admin) };
        let method = if *method == Method::HEAD { &Method::GET } else { method };
        methods
            .iter()
            .find(|(each, _)| each == method)
            .map_or(Access::AnyKey, |(_, access)| *access)
    }
}

/// A router that takes no route without its scope.
pub(crate) struct Guarded<S> {
    router: OpenApiRouter<S>,
    table: AccessTable,
}

impl<S: Clone + Send + Sync + 'static> Guarded<S> {
    pub(crate) fn new(document: OpenApi) -> Self {
        Self { router: OpenApiRouter::with_openapi(document), table: AccessTable::default() }
    }

    /// Adds operations that need a key with the scope `read`.
    pub(crate) fn read(self, routes: UtoipaMethodRouter<S>) -> Self {
        self.routes(Access::Scope(Scope::Read), routes)
    }

    /// Adds operations that need a key with the scope `score`.
    pub(crate) fn score(self, routes: UtoipaMethodRouter<S>) -> Self {
        self.routes(Access::Scope(Scope::Score), routes)
    }

    /// Adds operations that need a key with the scope `annotate`.
    pub(crate) fn annotate(self, routes: UtoipaMethodRouter<S>) -> Self {
        self.routes(Access::Scope(Scope::Annotate), routes)
    }

    /// Adds operations that need a key with the scope `generate`.
    pub(crate) fn generate(self, routes: UtoipaMethodRouter<S>) -> Self {
        self.routes(Access::Scope(Scope::Generate), routes)
    }

    /// Adds operations that need a key with the scope `admin`.
    pub(crate) fn admin(self, routes: UtoipaMethodRouter<S>) -> Self {
        self.routes(Access::Scope(Scope::Admin), routes)
    }

    /// Adds operations that never need a key.
    pub(crate) fn open(self, routes: UtoipaMethodRouter<S>) -> Self {
        self.routes(Access::Open, routes)
    }

    /// Adds operations that need a key if `keys.metrics` is set.
    pub(crate) fn metrics(self, routes: UtoipaMethodRouter<S>) -> Self {
        self.routes(Access::Metrics, routes)
    }

    /// Adds a page, which the API document does not have.
    pub(crate) fn page(mut self, access: Access, path: &str, handler: MethodRouter<S>) -> Self {
        self.table.add(Method::GET, path, access);
        // Problem documents become pages first (`pages/problems.rs`).
        let plain = NotForContentType::const_new("application/problem+json");
        let compress = CompressionLayer::new().compress_when(DefaultPredicate::new().and(plain));
        let handler = handler.layer(compress);
        Self { router: self.router.route(path, handler), table: self.table }
    }

    /// Adds the form of a page, or another address of an operation, which the API document does not
    /// have.
    pub(crate) fn form(mut self, scope: Scope, path: &str, handler: MethodRouter<S>) -> Self {
        self.table.add(Method::POST, path, Access::Scope(scope));
        Self { router: self.router.route(path, handler), table: self.table }
    }

    fn routes(mut self, access: Access, mut routes: UtoipaMethodRouter<S>) -> Self {
        for (path, item) in &mut routes.1.paths {
            for (method, operation) in operations(item) {
                operation.security = Some(security(access));
                self.table.add(method, path, access);
            }
        }
        Self { router: self.router.routes(routes), table: self.table }
    }

    /// Returns the API document.
    pub(crate) fn into_openapi(self) -> OpenApi {
        self.router.into_openapi()
    }

    /// Returns the router and what its routes need.
    pub(crate) fn split(self) -> (Router<S>, AccessTable) {
        (self.router.split_for_parts().0, self.table)
    }
}

impl AccessTable {
    /// Adds all routes of another table.
    pub(crate) fn merge(mut self, other: Self) -> Self {
        for (route, methods) in other.0 {
            // Operations of one path may be in both.
            self.0.entry(route).or_default().extend(methods);
        }
        self
    }
}

/// Returns the operations of a path.
fn operations(item: &mut PathItem) -> impl Iterator<Item = (Method, &mut Operation)> {
    let all = [
        (Method::GET, &mut item.get),
        (Method::PUT, &mut item.put),
        (Method::POST, &mut item.post),
        (Method::DELETE, &mut item.delete),
        (Method::PATCH, &mut item.patch),
    ];
    all.into_iter().filter_map(|(method, operation)| Some((method, operation.as_mut()?)))
}

/// Returns the security requirements of an operation, of which one suffices.
fn security(access: Access) -> Vec<SecurityRequirement> {
    let keys =
        |scope: Scope| SCHEMES.map(|scheme| SecurityRequirement::new(scheme, [scope.name()]));
    match access {
        Access::Open | Access::AnyKey => Vec::new(),
        Access::Metrics => {
            let optional = [SecurityRequirement::default()];
            optional.into_iter().chain(keys(Scope::Read)).collect()
        }
        Access::Scope(scope) => keys(scope).into(),
        Access::Either(one, other) => keys(one).into_iter().chain(keys(other)).collect(),
    }
}

/// Describes in the API document how a key is sent.
pub(crate) fn add_schemes(document: &mut OpenApi) {
    let components = document.components.get_or_insert_default();
    let schemes = [
        (HttpAuthScheme::Bearer, "An API key as `Authorization: Bearer KEY`"),
        (HttpAuthScheme::Basic, "An API key as the password; the user name is ignored"),
    ];
    for (name, (scheme, description)) in SCHEMES.into_iter().zip(schemes) {
        let mut http = Http::new(scheme);
        http.description = Some(format!("{description}. Not needed while there are no keys."));
        components.add_security_scheme(name, SecurityScheme::Http(http));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_route_needs_a_key_and_one_without_a_scope_the_strongest() {
        let table = AccessTable::default().with(Method::GET, "/a", Access::Open);
        assert_eq!(table.of(&Method::GET, Some("/a")), Access::Open);
        assert_eq!(table.of(&Method::HEAD, Some("/a")), Access::Open);
        assert_eq!(table.of(&Method::POST, Some("/a")), Access::AnyKey);
        assert_eq!(table.of(&Method::GET, Some("/b")), Access::Scope(Scope::Admin));
        assert_eq!(table.of(&Method::GET, None), Access::AnyKey);
    }
}

//! For tests of deaths, in a build with the feature `hold` alone: holds the daemon when a request
//! has come in, `enter/Create`, or when it has been carried out and is not answered yet,
//! `answer/Create`. See the runtime's `process::hold`.

use async_trait::async_trait;
use runtime::process::hold;
use ttrpc::r#async::{MethodHandler, Service, TtrpcContext};
use ttrpc::{Request, Response, Result};

struct Held {
    name: String,
    method: Box<dyn MethodHandler + Send + Sync>,
}

#[async_trait]
impl MethodHandler for Held {
    async fn handler(&self, context: TtrpcContext, request: Request) -> Result<Response> {
        // The whole daemon waits: it has one thread.
        hold("enter", &self.name);
        let answer = self.method.handler(context, request).await;
        hold("answer", &self.name);
        answer
    }
}

/// The same service, with a hold around each of its methods.
pub(crate) fn around(service: Service) -> Service {
    let methods = service.methods.into_iter().map(|(name, method)| {
        let held = Held { name: name.clone(), method };
        (name, Box::new(held) as Box<dyn MethodHandler + Send + Sync>)
    });
    Service { methods: methods.collect(), ..service }
}

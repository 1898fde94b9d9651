//! The client of the service: who we are, where it is, and what is never done with it.

use aws_config::environment::region::EnvironmentVariableRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::region::ProfileFileRegionProvider;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region};
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::interceptors::BeforeTransmitInterceptorContextRef;
use aws_sdk_s3::config::{
    Builder, ConfigBag, Intercept, RequestChecksumCalculation, RuntimeComponents,
};
use aws_sdk_s3::error::BoxError;
use thiserror::Error;
use tokio::time::timeout;

use super::address::{S3Address, is_in_the_clear};
use super::date::Dates;
use super::failure::{Failure, Meaning};
use super::keys::Keys;
use super::requests::{ANSWER, CONNECT};

const NO_CREDENTIALS: &str = "there are no credentials: set AWS_ACCESS_KEY_ID and \
                              AWS_SECRET_ACCESS_KEY, or name a profile in AWS_PROFILE, or give this \
                              machine a role";

const NO_REGION: &str = "there is no region: say region=… in the address, or set AWS_REGION, or name a profile with one";

/// Makes the client: credentials are found and read, nothing is asked of the service. What its answers
/// say of the time goes into `dates`.
///
/// # Errors
/// [`Meaning::Denied`] when there are no credentials or no region.
pub async fn connect(
    address: &S3Address,
    keys: Option<&Keys>,
    dates: Dates,
) -> Result<Client, Failure> {
    if address.is_in_the_clear() {
        tracing::warn!(
            endpoint = address.endpoint,
            "THE DATABASE GOES OVER THE NETWORK UNENCRYPTED, as allow-http=true says"
        );
    }
    let region = region(address).await?;
    let timeouts = TimeoutConfig::builder().connect_timeout(CONNECT).disable_read_timeout();
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .region(region)
        .retry_config(RetryConfig::disabled())
        .timeout_config(timeouts.build());
    if let Some(keys) = keys {
        loader = loader.credentials_provider(keys.credentials());
    }
    let config = timeout(ANSWER, loader.load()).await;
    let config = config.map_err(|_elapsed| no_credentials_in_time())?;
    let provider = config.credentials_provider();
    prove(&provider.ok_or_else(|| Failure::found(Meaning::Denied, NO_CREDENTIALS))?).await?;
    let mut builder = Builder::from(&config)
        .force_path_style(address.force_path_style)
        .interceptor(dates)
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired);
    if let Some(endpoint) = &address.endpoint {
        builder = builder.endpoint_url(endpoint);
    }
    if !address.allow_http {
        builder = builder.interceptor(NothingInTheClear);
    }
    Ok(Client::from_conf(builder.build()))
}

/// The region that the address, the environment or the profile says. Stores that are not AWS often do
/// not mind.
async fn region(address: &S3Address) -> Result<Region, Failure> {
    let told = address.region.clone().map(Region::new);
    let chain = RegionProviderChain::first_try(told)
        .or_else(EnvironmentVariableRegionProvider::new())
        .or_else(ProfileFileRegionProvider::new());
    let otherwise = address.endpoint.as_ref().map(|_| Region::from_static("us-east-1"));
    let region = chain.region().await.or(otherwise);
    region.ok_or_else(|| Failure::found(Meaning::Denied, NO_REGION))
}

/// Whether there are credentials, before a request has to find out that there are none.
async fn prove(provider: &SharedCredentialsProvider) -> Result<(), Failure> {
    let found = timeout(ANSWER, provider.provide_credentials()).await;
    let error = match found {
        Ok(Ok(_credentials)) => return Ok(()),
        Ok(Err(error)) => error,
        Err(_elapsed) => return Err(no_credentials_in_time()),
    };
    let reason = match &error {
        CredentialsError::CredentialsNotLoaded(_) => NO_CREDENTIALS.to_owned(),
        CredentialsError::InvalidConfiguration(_) => {
            format!("the AWS configuration cannot be used: {}", crate::describe(&error))
        }
        _ => format!("{NO_CREDENTIALS} ({})", crate::describe(&error)),
    };
    Err(Failure::found(Meaning::Denied, reason))
}

fn no_credentials_in_time() -> Failure {
    let reason = format!("no credentials were found within {} s", ANSWER.as_secs());
    Failure::found(Meaning::Denied, format!("{reason}; {NO_CREDENTIALS}"))
}

/// A request that others could read on the way.
#[derive(Debug, Error)]
#[error("the endpoint is http: use https, or add allow-http=true to the address")]
pub struct InTheClear;

/// Stops requests that others could read on the way. The endpoint may come from the environment, too.
#[derive(Debug)]
struct NothingInTheClear;

impl Intercept for NothingInTheClear {
    fn name(&self) -> &'static str {
        "NothingInTheClear"
    }

    fn read_before_transmit(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        match context.request().uri() {
            uri if is_in_the_clear(uri) => Err(InTheClear.into()),
            _ => Ok(()),
        }
    }
}

//! S3, Google Cloud Storage and Azure, configured by the environment variables their own tools read (`AWS_REGION`,
//! `AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL`, `GOOGLE_SERVICE_ACCOUNT`, `AZURE_STORAGE_ACCOUNT_NAME`, …).

use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::path::Path;
use object_store::{ObjectStore, RetryConfig};
use std::sync::Arc;
use std::time::Duration;
use url::Url;

use crate::error::{Error, Result};

/// Whose store a URL names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cloud {
    Aws,
    Google,
    Azure,
}

impl Cloud {
    pub(super) fn of(scheme: &str) -> Option<Self> {
        match scheme {
            "s3" | "s3a" => Some(Cloud::Aws),
            "gs" => Some(Cloud::Google),
            "az" | "azure" | "adl" | "abfs" | "abfss" => Some(Cloud::Azure),
            _ => None,
        }
    }

    /// What the names of its environment variables begin with.
    pub(super) fn prefix(self) -> &'static str {
        match self {
            Cloud::Aws => "AWS_",
            Cloud::Google => "GOOGLE_",
            Cloud::Azure => "AZURE_",
        }
    }

    /// The store of `url` and the path in it. `vars`: environment variables by name; those it does not know are ignored.
    pub(super) fn open(self, url: &str, vars: Vec<(String, String)>) -> Result<(Arc<dyn ObjectStore>, Path)> {
        let bad = |e: String| Error::user("bad-path", format!("`{url}`: {e}"));
        let parsed = Url::parse(url).map_err(|e| bad(e.to_string()))?;
        if parsed.host_str().is_none_or(str::is_empty) {
            return Err(bad("names no bucket".to_string()).with_hint("such as s3://bucket/path"));
        }
        let path = Path::from_url_path(parsed.path()).map_err(|e| bad(e.to_string()))?;
        let refused = |e: object_store::Error| {
            Error::user("object-store", format!("`{url}`: {e}"))
                .with_hint(format!("the store is configured by environment variables `{}…`", self.prefix()))
        };
        macro_rules! build {
            ($builder:ty) => {{
                let mut builder = <$builder>::new().with_url(url).with_retry(retry());
                for (name, value) in vars {
                    if let Ok(key) = name.to_ascii_lowercase().parse() {
                        builder = builder.with_config(key, value);
                    }
                }
                Arc::new(builder.build().map_err(refused)?)
            }};
        }
        let store: Arc<dyn ObjectStore> = match self {
            Cloud::Aws => build!(AmazonS3Builder),
            Cloud::Google => build!(GoogleCloudStorageBuilder),
            Cloud::Azure => build!(MicrosoftAzureBuilder),
        };
        Ok((store, path))
    }
}

/// A request that fails for so long is an error: whoever made it knows whether and when to try again.
fn retry() -> RetryConfig {
    RetryConfig { max_retries: 4, retry_timeout: Duration::from_secs(30), ..RetryConfig::default() }
}

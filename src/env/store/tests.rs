use super::*;
use futures::TryStreamExt;
use object_store::{ObjectStoreExt, PutMode};

fn vars(of: &[(&str, &str)]) -> Vars {
    Vars::new(of.iter().map(|(name, value)| ((*name).to_string(), (*value).to_string())).collect())
}

#[test]
fn clouds_are_configured_by_their_own_variables_and_opened_once() {
    let stores = Stores::real();
    let with = vars(&[
        ("AWS_REGION", "eu-central-1"),
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:1"),
        ("AWS_ACCESS_KEY_ID", "smelt"),
        ("AWS_SECRET_ACCESS_KEY", "hush-hush"),
        ("AWS_SOMETHING_ELSE", "ignored"),
        ("AZURE_STORAGE_ACCOUNT_NAME", "telco"),
        ("AZURE_STORAGE_ACCOUNT_KEY", "aHVzaC1odXNo"),
    ]);
    assert_eq!(with.redact("hush-hush aHVzaC1odXNo"), "**** ****");
    let (one, path) = stores.open("s3://bucket/lake/deep", true, &with).unwrap();
    let (two, _) = stores.open("s3://bucket/other", true, &with).unwrap();
    let (three, _) = stores.open("s3://another/other", true, &with).unwrap();
    assert!(Arc::ptr_eq(&one, &two) && !Arc::ptr_eq(&one, &three));
    assert_eq!(path.as_ref(), "lake/deep");
    assert_eq!(stores.open("az://container/lake", true, &with).unwrap().1.as_ref(), "lake");
    let error = stores.open("az://container/lake", true, &vars(&[])).unwrap_err();
    assert!(error.hint().unwrap().contains("AZURE_"), "{error:?}");
}

fn bytes(text: &str) -> object_store::PutPayload {
    object_store::PutPayload::from(text.to_string())
}

#[tokio::test]
async fn local_puts_create_directories_and_refuse_to_overwrite_when_asked() {
    let dir = tempfile::tempdir().unwrap();
    let stores = Stores::real();
    for (fsync, name) in [(true, "a"), (false, "b")] {
        let (store, root) = stores.open(dir.path().to_str().unwrap(), fsync, &vars(&[])).unwrap();
        let path = root.join(name).join("deep").join("file.json");
        store.put_opts(&path, bytes("one"), PutMode::Create.into()).await.unwrap();
        let again = store.put_opts(&path, bytes("two"), PutMode::Create.into()).await;
        assert!(matches!(again, Err(object_store::Error::AlreadyExists { .. })), "{again:?}");
        assert_eq!(store.get(&path).await.unwrap().bytes().await.unwrap(), "one");
        store.put(&path, bytes("three")).await.unwrap();
        assert_eq!(store.get(&path).await.unwrap().bytes().await.unwrap(), "three");
        let names: Vec<_> = std::fs::read_dir(dir.path().join(name).join("deep")).unwrap().collect();
        assert_eq!(names.len(), 1, "no temporary file stays: {names:?}");
    }
}

#[test]
fn unknown_schemes_and_relative_paths_are_the_users_errors() {
    let stores = Stores::real();
    let error = |url: &str| stores.open(url, true, &vars(&[])).err().unwrap();
    assert_eq!(error("hdfs://namenode/lake").code(), "unsupported-store");
    assert_eq!(error("s3:///lake").code(), "bad-path");
    assert_eq!(error("file://lake").code(), "bad-path");
    assert_eq!(error("lake").code(), "bad-path");
}

#[tokio::test]
async fn faults_are_counted_and_land_as_they_say() {
    let faulty = FaultyStore::new(FaultPlan::default());
    let stores = Stores::simulated(faulty.clone());
    let (store, root) = stores.open("memory://lake", true, &vars(&[])).unwrap();
    let at = |name: &str| root.clone().join(name);

    faulty.fail_next_put("x", Fault::Timeout);
    assert!(store.put(&at("x"), bytes("1")).await.is_err());
    assert!(store.get(&at("x")).await.is_ok(), "applied although it failed");

    faulty.fail_next_put("y", Fault::Late(1));
    assert!(store.put(&at("y"), bytes("1")).await.is_err());
    assert!(store.get(&at("y")).await.is_err());
    assert!(store.get(&at("y")).await.is_ok(), "landed late");
    assert_eq!(faulty.counts(), RequestCounts { puts: 2, gets: 3, lists: 0, deletes: 0 });

    faulty.set_plan(FaultPlan { capacity: Some(3), ..FaultPlan::default() });
    assert!(store.put(&at("z"), bytes("12345")).await.is_err());
    let listed: Vec<_> = store.list(Some(&root)).try_collect().await.unwrap();
    assert_eq!(listed.len(), 2);
}

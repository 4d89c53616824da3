use testbed::*;
#[tokio::main]
async fn main() -> anyhow::Result<()> {
        let t = std::time::Instant::now();
        let v = Vault::start(VaultOptions{storage: Storage::Raft, ..Default::default()}).await?;
        println!("vault {:?}", t.elapsed());
        println!("{}", v.process().log());
    Ok(())
}

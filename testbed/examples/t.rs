use testbed::*;
#[tokio::main]
async fn main() -> anyhow::Result<()> {
    for _ in 0..3 {
        let t = std::time::Instant::now();
        let c = Cluster::start("a").await?;
        println!("cluster {:?}", t.elapsed());
        rss("etcd", c.etcd().pid());
        rss("api", c.api_server().pid());
        rss("cm", c.controller_manager().pid());
        let t = std::time::Instant::now();
        c.stop_api_server()?;
        c.start_api_server().await?;
        println!("restart api {:?}", t.elapsed());
        let t = std::time::Instant::now();
        c.stop_etcd()?;
        c.start_etcd().await?;
        println!("restart etcd {:?}", t.elapsed());
        let t = std::time::Instant::now();
        c.kubectl(&["get", "ns"]).await?;
        println!("kubectl {:?}", t.elapsed());
        tokio::time::sleep(std::time::Duration::from_secs(5)).await;
        rss("etcd", c.etcd().pid());
        rss("api", c.api_server().pid());
        rss("cm", c.controller_manager().pid());
        let t = std::time::Instant::now();
        drop(c);
        println!("drop {:?}", t.elapsed());
        for storage in [Storage::File, Storage::Raft] {
            let t = std::time::Instant::now();
            let v = Vault::start(VaultOptions {
                storage,
                ..Default::default()
            })
            .await?;
            println!("vault {storage:?} {:?}", t.elapsed());
            rss("vault", v.process().pid());
            let t = std::time::Instant::now();
            v.seal().await?;
            println!("seal {:?}", t.elapsed());
            let t = std::time::Instant::now();
            v.unseal().await?;
            println!("unseal {:?}", t.elapsed());
            let t = std::time::Instant::now();
            v.stop()?;
            v.start_again().await?;
            println!("restart {:?}", t.elapsed());
            let t = std::time::Instant::now();
            v.cli(&["status"]).await?;
            println!("cli {:?}", t.elapsed());
        }
    }
    Ok(())
}
fn rss(n: &str, pid: u32) {
    let s = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    println!(
        "{n} {}",
        s.lines()
            .filter(|l| l.starts_with("VmRSS") || l.starts_with("RssAnon"))
            .collect::<Vec<_>>()
            .join(" ")
    );
}

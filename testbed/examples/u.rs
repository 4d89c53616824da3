use testbed::*;
#[tokio::main]
async fn main() -> anyhow::Result<()> {
        let t = std::time::Instant::now();
        let c = Cluster::start("a").await?;
        println!("cluster {:?}", t.elapsed());
        let t = std::time::Instant::now();
        c.stop_etcd()?; c.start_etcd().await?;
        println!("restart etcd {:?}", t.elapsed());
        for _ in 0..3 {
        let t = std::time::Instant::now();
        c.kubectl(&["get","ns"]).await?; 
        println!("kubectl {:?}", t.elapsed());}
        println!("{}", c.kubectl(&["get","ns", "-v=6"]).await?);
    Ok(())
}

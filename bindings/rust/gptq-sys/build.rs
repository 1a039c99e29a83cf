// SPDX-License-Identifier: Apache-2.0
//! Finds libgptq: GPTQ_LIB_DIR names its folder, GPTQ_SOURCE a checkout to build it from, otherwise pkg-config knows it.
use std::env;
use std::path::Path;
use std::process::Command;

fn run(program: &str, arguments: &[&str]) -> Result<String, String> {
    let line = format!("{program} {}", arguments.join(" "));
    let output = Command::new(program).args(arguments).output().map_err(|error| format!("{line}: {error}"))?;
    if !output.status.success() {
        return Err(format!("{line}: {}", String::from_utf8_lossy(&output.stderr)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn build(source: &str) -> Result<String, String> {
    let build = format!("{}/build", env::var("OUT_DIR").map_err(|error| error.to_string())?);
    if !Path::new(&build).join("build.ninja").exists() {
        run("meson", &["setup", &build, source, "-Dtests=disabled", "-Dconverter=disabled", "-Dcuda=disabled"])?;
    }
    run("meson", &["compile", "-C", &build, "gptq:shared_library"])?;
    Ok(format!("-L{build}/runtime -lgptq"))
}

fn main() {
    for name in ["GPTQ_LIB_DIR", "GPTQ_SOURCE", "PKG_CONFIG_PATH"] {
        println!("cargo:rerun-if-env-changed={name}");
    }
    let flags = match (env::var("GPTQ_LIB_DIR"), env::var("GPTQ_SOURCE")) {
        (Ok(folder), _) => Ok(format!("-L{folder} -lgptq")),
        (_, Ok(source)) => build(&source),
        _ => run("pkg-config", &["--libs", "gptq"]),
    };
    match flags {
        Ok(flags) => {
            for flag in flags.split_whitespace() {
                if let Some(folder) = flag.strip_prefix("-L") {
                    println!("cargo:rustc-link-search=native={folder}");
                } else if let Some(library) = flag.strip_prefix("-l") {
                    println!("cargo:rustc-link-lib={library}");
                } else if flag.starts_with('/') {
                    let (folder, file) = flag.rsplit_once('/').unwrap_or(("", flag));
                    println!("cargo:rustc-link-search=native={folder}");
                    println!("cargo:rustc-link-lib={}", file.trim_start_matches("lib").split('.').next().unwrap_or(file));
                }
            }
        }
        Err(why) => panic!("libgptq is not found: set GPTQ_LIB_DIR or GPTQ_SOURCE, or install gptq.pc\n{why}"),
    }
}

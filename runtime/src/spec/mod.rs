//! What the bundle alleges: config.json, process.json and resources, as oci-spec types.

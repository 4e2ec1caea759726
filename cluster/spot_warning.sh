#!/usr/bin/env bash
# On a spot machine: waits for the provider's warning, then drains this node, so that Ray starts
# nothing more on it and its trials save themselves. Started beside `ray start` by ray_up_*.yaml.
#   cluster/spot_warning.sh aws|gcp HEAD:6379
# AWS warns 2 minutes before, Google 30 seconds. SPOT_METADATA_URL names another metadata server.
set -u
provider=${1:-} gcs=${2:-} seconds=5
case $provider in
  aws) url=${SPOT_METADATA_URL:-http://169.254.169.254} left=120 ;;
  gcp) url=${SPOT_METADATA_URL:-http://metadata.google.internal} left=30 ;;
  *) echo "usage: cluster/spot_warning.sh aws|gcp HEAD:6379" >&2; exit 2 ;;
esac

get() { curl --silent --fail --max-time 3 "$@"; }

# https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html
warned_aws() {
  local token
  token=$(get -X PUT -H "X-aws-ec2-metadata-token-ttl-seconds: 60" "$url/latest/api/token") &&
    get -o /dev/null -H "X-aws-ec2-metadata-token: $token" "$url/latest/meta-data/spot/instance-action"
}

# https://cloud.google.com/compute/docs/instances/create-use-preemptible#detecting_if_an_instance_was_preempted
warned_gcp() {
  [ "$(get -H "Metadata-Flavor: Google" "$url/computeMetadata/v1/instance/preempted")" = TRUE ]
}

until "warned_$provider"; do sleep "$seconds"; done
node=$(python -c "
import ray
ray.init(address='$gcs', log_to_driver=False, logging_level='error')
print(ray.get_runtime_context().get_node_id())
" | tail -n 1)
exec ray drain-node --address "$gcs" --node-id "$node" \
  --reason DRAIN_NODE_REASON_PREEMPTION --reason-message "the provider takes the machine back" \
  --deadline-remaining-seconds "$left"

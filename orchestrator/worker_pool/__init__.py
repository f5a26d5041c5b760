"""The Ray actors that compute units: the only place, beside the command line, that knows of Ray.

    pool.py          WorkerPool: dispatch, collect, requeue
    backlog.py       units without a result, and the rules for those that fail
    fleet.py         as many actors as the cluster has room for, replaced when lost
    actor.py         the actor's side
    weight_store.py  versions of the weights in the object store
    cluster.py       joining or starting a cluster
    config.py        the section `workers`, free of Ray
    errors.py        what stops a run of the pool

Nothing is exported here: reading a configuration must not load Ray.
"""

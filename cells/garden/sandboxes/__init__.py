"""Prepared namespaces with a process that holds them: what a container needs before anybody asks for one."""

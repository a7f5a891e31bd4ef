#include "mmu/roots.h"

int root_init(struct root *root, const struct role *role, const struct geometry *geo,
	      const struct s2_env *env)
{
	root->role = *role;
	root->role.input_bits = geo->input_bits;
	atomic_store(&root->refs, 1);
	return pgtable_init(&root->pt, geo, env);
}

void root_free(struct root *root, const struct format *f, struct walk_count *found)
{
	walk_free_tree(f, &root->pt, root->pt.root, root->pt.geo.levels, found);
	root->pt.root = NULL;
}
